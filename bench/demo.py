"""From the click on Search to painted hits, less the server's own time for the same question; the bar is 300 ms.

python bench/demo.py --images data/synthetic [--repository runs/quickstart/models] [--rows 10000] [--searches 40]

A headless Chromium clicks; the clock runs in the browser from the click until the frame after every thumbnail is
decoded. The server's own time is that of the same search from a client which is connected already. Without
`--repository` it serves tiny random models.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "model_repository" / "gallery_search" / "1")]

from demo_browser import Browser, chromium  # noqa: E402
from demo_page import opened  # noqa: E402

from descry.client import SearchClient, parse_statements  # noqa: E402
from descry.client.serve import TritonServer  # noqa: E402

STATED, DROPPED, BAR = 4, 5, 300  # groups of a question, first searches left out, milliseconds
CLICK = """
const done = arguments[arguments.length - 1], results = document.querySelector("#results");
const drawn = () => results.querySelector(".found")?.dataset.drawn, before = drawn();
let start;
new MutationObserver(async (changes, observer) => {
  if (drawn() === before || drawn() === undefined) return;
  observer.disconnect();
  await Promise.all([...results.querySelectorAll("img")].map((one) => one.decode().catch(() => null)));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
}).observe(results, {subtree: true, childList: true, attributes: true});
const button = document.querySelector("#search");
button.addEventListener("click", () => { start = performance.now(); }, {once: true, capture: true});
button.click();
"""


def fill(repository: Path, path: Path, rows: int, images: Path) -> None:
    """Write random unit embeddings and scores straight into the gallery file; rows share the images."""
    from gallery import Gallery
    from gallery_row import checked_put
    from served_model import ServedModel

    model = ServedModel.load(repository)
    gallery, generator = Gallery(path, model), np.random.default_rng(0)
    names = sorted(str(one.relative_to(images)) for one in images.rglob("*.jpg"))
    embeddings = generator.standard_normal((rows, model.embedding_size)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = generator.random((rows, model.attribute_count), np.float32)
    for start in tqdm(range(0, rows, 1000), desc="filling", unit="1000 rows"):
        part = range(start, min(rows, start + 1000))
        metadata = [json.dumps({"camera": str(row % 6), "image": names[row % len(names)]}) for row in part]
        gallery.write(
            [
                checked_put(model, f"{row:06d}", text, embeddings[row], scores[row])
                for row, text in zip(part, metadata, strict=True)
            ]
        )
    gallery.close()


def measure(browser: Browser, client: SearchClient, searches: int) -> tuple[list[float], list[float]]:
    """Milliseconds from click to paint, and of the server alone."""
    generator, groups = np.random.default_rng(1), client.schema.groups
    painted, served = [], []
    for _ in tqdm(range(searches + DROPPED), desc="searching"):
        chosen = generator.choice(len(groups), min(STATED, len(groups)), replace=False)
        words = [f"{groups[index].name}={generator.choice(groups[index].values)}" for index in chosen]
        browser.script("document.querySelectorAll('#describe .stated .any').forEach((one) => one.click())")
        for word in words:
            name, value = word.split("=", 1)
            chip = f'#describe [data-group="{name}"] [data-value="{value}"]'
            browser.script("document.querySelector(arguments[0]).click()", chip)
        time.sleep(1.5)  # the sentence and the figure follow the clicks
        painted.append(browser.driver.execute_async_script(CLICK))
        started = time.perf_counter()
        client.search(parse_statements(words), 24)
        served.append(1000 * (time.perf_counter() - started))
    return painted[DROPPED:], served[DROPPED:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG crops, shown as hits")
    parser.add_argument("--repository", type=Path, help="an exported model repository")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--searches", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = options.repository
        if repository is None:
            from tiny_models import tiny_repository

            repository = tiny_repository(folder / "models")
        fill(repository, folder / "gallery.sqlite", options.rows, options.images)
        with (
            TritonServer(repository, folder / "gallery.sqlite", grpc_port=0, metrics_port=0, progress=print) as server,
            opened(server.url, options.images) as address,
            SearchClient(server.url, timeout=60) as client,
            chromium() as driver,
        ):
            driver.set_script_timeout(60)
            browser = Browser(driver, address)
            started = time.perf_counter()
            browser.open()
            loaded = time.perf_counter() - started
            painted, served = measure(browser, client, options.searches)
    print(f"{options.rows} rows, 24 hits, {options.searches} searches of {STATED} stated groups, milliseconds")
    print(f"{'':<24}{'p50':>8}{'p95':>8}{'min':>8}")
    own = [page - server for page, server in zip(painted, served, strict=True)]
    for title, values in (("click to painted hits", painted), ("the server alone", served), ("the page's own", own)):
        print(f"{title:<24}{statistics.median(values):>8.0f}{np.percentile(values, 95):>8.0f}{min(values):>8.0f}")
    print(f"first load, to the last control drawn: {loaded:.2f} s")
    met = statistics.median(own) <= BAR
    print(f"bar of {BAR} ms: {'met' if met else 'missed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
