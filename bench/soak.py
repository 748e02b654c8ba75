"""Searches and writes at the machine's limit for a long time: latencies, errors, throughput and memory over time.

python bench/soak.py [--minutes 60] [--callers 8] [--rows 2000] [--output docs/results/soak]
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from processes import memory_of, processes_of_server
from tiny_models import tiny_repository

from descry.client import DescryError, SearchClient
from descry.client.serve import TritonServer
from descry.trainer.drawing import color_of, page, save

ROOT = Path(__file__).parents[1]
# What callers do, and how often of 20 times.
MIX = {"search": 9, "index": 6, "similar": 2, "update": 1, "delete": 1, "describe": 1}
SAMPLE_SECONDS = 2.0
BINS = 60
LEVELS = (50, 95, 99)
# Of a run; memory is compared between the ends of these two parts.
SETTLED, ENDED = (0.2, 0.4), (0.8, 1.0)
Call = tuple[str, float, float, str]  # name, when it began, seconds, error


class Load:
    """Callers that ask one thing after another, until they are told to stop."""

    def __init__(self, url: str, rows: int) -> None:
        """The gallery holds at most `rows` rows: ids come again."""
        self.url, self.rows = url, rows
        self.ended = threading.Event()
        generator = np.random.default_rng(0)
        self.images = [Image.fromarray(each) for each in generator.integers(0, 256, (64, 80, 40, 3), np.uint8)]

    def fill(self) -> None:
        """Write every row once."""
        with SearchClient(self.url, timeout=120) as client, ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda number: client.index(self.images[number % 64], *self.row(number)), range(self.rows)))

    def row(self, number: int) -> tuple[str, dict]:
        """Id and metadata."""
        day = f"2026-01-{1 + number % 28:02}T00:00:00"
        return f"soak/{number}", {"camera": f"{number % 8}", "track": f"{number // 5}", "time": day}

    def run(self, seed: int) -> list[Call]:
        """One caller."""
        chance, calls = np.random.default_rng(seed), list[Call]()
        names = [name for name, share in MIX.items() for _ in range(share)]
        with SearchClient(self.url, timeout=60) as client:
            while not self.ended.is_set():
                name, number = names[chance.integers(len(names))], int(chance.integers(self.rows))
                began, error = time.monotonic(), ""
                try:
                    self.actions(client, number)[name]()
                except DescryError as failure:
                    error = str(failure)
                calls.append((name, began, time.monotonic() - began, error))
        return calls

    def actions(self, client: SearchClient, number: int) -> dict[str, Callable[[], object]]:
        """What a caller can do with the row of a number."""
        image, (id, metadata) = self.images[number % 64], self.row(number)
        gender, tracks = ("male", "female")[number % 2], "best" if number % 5 == 0 else None
        cameras = None if number % 3 else [f"{number % 8}"]
        return {
            "search": lambda: client.search({"gender": gender, "hat": "no"}, 20, cameras=cameras, by_track=tracks),
            "similar": lambda: client.similar(image, {"upper_color": "red"}, 20),
            "index": lambda: client.index(image, id, metadata),
            "update": lambda: client.update({id: metadata | {"note": "seen"}}),
            "delete": lambda: client.delete([id]),
            "describe": lambda: client.describe(image),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "soak")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gallery, log = folder / "gallery.sqlite", folder / "triton.log"
        with TritonServer(tiny_repository(folder / "models"), gallery, grpc_port=0, metrics_port=0, log=log) as server:
            load = Load(server.url, options.rows)
            load.fill()
            began, calls, memory = measured(server, load, options.callers, 60 * options.minutes)
            with SearchClient(server.url, timeout=120) as client:
                sound = client.verify().sound and server.alive()
    summary = summarised(calls, memory, 60 * options.minutes) | {"callers": options.callers, "rows": options.rows}
    summary |= {"gallery_sound": sound, "cores": os.cpu_count(), "load_average": os.getloadavg()[1]}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n")
    draw(calls, memory, began, 60 * options.minutes, options.output.with_suffix(".png"))
    print(json.dumps(summary, indent=1))
    sys.exit(0 if sound and not summary["errors"] else 1)


def measured(server: TritonServer, load: Load, callers: int, seconds: float) -> tuple[float, list[Call], list[tuple]]:
    """When it began, all calls, and the memory as (seconds since then, MiB resident, MiB not shared)."""
    began, memory = time.monotonic(), []
    processes = processes_of_server(server.grpc_port)
    with ThreadPoolExecutor(callers) as pool:
        running = [pool.submit(load.run, seed) for seed in range(callers)]
        try:
            while (now := time.monotonic() - began) < seconds:
                memory.append((now, *memory_of(processes)))
                time.sleep(SAMPLE_SECONDS)
        finally:
            load.ended.set()
        calls = [call for caller in running for call in caller.result()]
    return began, calls, memory


def summarised(calls: list[Call], memory: list[tuple], seconds: float) -> dict:
    """The figures of a run; memory in MiB, as the median of its samples in a part of the run."""
    errors = [error for *_, error in calls if error]
    found: dict = {"minutes": seconds / 60, "calls": len(calls), "calls_a_second": round(len(calls) / seconds, 1)}
    found |= {"errors": len(errors), "first_errors": errors[:5], "milliseconds": {}}
    for name in MIX:
        taken = [1000 * duration for each, _, duration, _ in calls if each == name]
        levels = dict(zip((f"p{level}" for level in LEVELS), np.percentile(taken, LEVELS).round(1), strict=True))
        found["milliseconds"][name] = {"calls": len(taken)} | levels | {"most": round(max(taken), 1)}
    for part, (start, end) in {"settled": SETTLED, "ended": ENDED}.items():
        sampled = [values for at, *values in memory if start * seconds <= at < end * seconds]
        resident, own = np.median(sampled, axis=0).round().tolist()
        found[f"memory_{part}"] = {"resident": resident, "not_shared": own}
    return found


def draw(calls: list[Call], memory: list[tuple], began: float, seconds: float, path: Path) -> None:
    """Latencies of search and index, calls a second and memory over the minutes of the run."""
    figure = page(9, 7)
    above, middle, below = figure.subplots(3, 1, sharex=True)
    edges = np.linspace(0, seconds, min(BINS, max(2, int(seconds / 5))) + 1)
    for number, name in enumerate(("search", "index")):
        at, taken = np.array([(start - began, 1000 * took) for each, start, took, _ in calls if each == name]).T
        places = np.digitize(at, edges[1:-1])
        for level, line in zip(LEVELS, ("-", "--", ":"), strict=True):
            values = [
                np.percentile(taken[places == place], level) if (places == place).any() else np.nan
                for place in range(len(edges) - 1)
            ]
            above.plot(edges[1:] / 60, values, line, color=color_of(number), label=f"{name} p{level}")
    counts = np.histogram([start - began for _, start, *_ in calls], edges)[0]
    middle.plot(edges[1:] / 60, counts / np.diff(edges), color=color_of(2))
    minutes, resident, own = np.array(memory).T
    below.plot(minutes / 60, resident, color=color_of(3), label="resident, all processes summed up")
    below.plot(minutes / 60, own, color=color_of(4), label="of which not shared")
    for axes, label in ((above, "milliseconds"), (middle, "calls a second"), (below, "memory, MiB")):
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    above.legend(ncols=2, fontsize=8)
    below.legend(fontsize=8, loc="lower right")
    below.set_xlabel("minutes")
    save(figure, path)


if __name__ == "__main__":
    main()
