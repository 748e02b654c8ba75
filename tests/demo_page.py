"""The search page on a free port, for its tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from descry.client import SearchClient
from descry.client.keys import USER_HEADER
from descry.demo.page import build, launch
from descry.demo.session import Site

PRESETS = {"Woman in red": ("gender=female", "upper_color=red"), "Of another model": ("wings=yes", "tail=long")}


@contextmanager
def opened(url: str, images: Path | None = None, auth: Any = None, **site: Any) -> Iterator[str]:
    """Serve the page; gives its address."""

    def connect(user: str | None) -> SearchClient:
        return SearchClient(url, timeout=60, headers={USER_HEADER: user} if user else None)

    page = build(Site(connect, images, presets=PRESETS, **site))
    try:
        _, address, _ = launch(page, prevent_thread_lock=True, quiet=True, auth=auth)
        yield address
    finally:
        page.close()


def fill_gallery(url: str, root: Path, name: str, count: int = 4) -> list[str]:
    """Index some crops of noise below `root`; two of them are one track. Gives their ids."""
    generator, ids = np.random.default_rng(7), []
    with SearchClient(url, timeout=60) as client:
        for number in range(count):
            path = root / f"{name}-{number}.png"
            Image.fromarray(generator.integers(0, 255, (64, 32, 3), np.uint8)).save(path)
            track = {"track": f"{name}-track"} if number < 2 else {}
            time = f"2026-05-01T08:0{number}:00"
            client.index(path, path.name, {"image": path.name, "camera": name, "time": time, **track})
            ids.append(path.name)
    return ids
