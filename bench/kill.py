"""SIGKILL at random moments of indexing: of the indexer, of the server, of its models; what of the rows is left.

python bench/kill.py [--rounds 200] [--minutes M] [--seed 0]
"""

import argparse
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from processes import children
from tiny_models import tiny_repository

from descry.client import DescryError, SearchClient
from descry.client.serve import DEAD_STOP_SECONDS, TritonServer

# Which process of the server a line of a process list belongs to; an indexer's death needs no new server.
VICTIMS = {
    "indexer": "",
    "tritonserver": "bin/tritonserver ",
    "gallery_write": "/gallery_write/1/",
    "decode_image": "/decode_image/1/",
}
IMAGES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no round begins after them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", nargs=2, metavar=("URL", "ROUND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.index:
        index_for_ever(*options.index)
        return
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = tiny_repository(folder / "models")
        server = started(repository, folder)
        acknowledged: dict[str, str] = {}
        kills, faults = Counter[str](), Counter[str]()
        end = time.monotonic() + 60 * options.minutes
        try:
            for round in range(options.rounds):
                if time.monotonic() > end:
                    break
                victim = chance.choice(list(VICTIMS))
                acknowledged |= index_and_kill(server, victim, round, chance)
                kills[victim] += 1
                if victim != "indexer":
                    server.stop(DEAD_STOP_SECONDS)
                    server = started(repository, folder)
                found = faults_of(server, acknowledged)
                faults.update(found)
                print(f"{round + 1}: {victim}, {len(acknowledged)} rows acknowledged, faults {dict(found)}", flush=True)
        finally:
            server.stop()
    print(f"kills: {dict(kills)}; rows acknowledged: {len(acknowledged)}")
    print(", ".join(f"{what}: {faults[what]}" for what in ("lost", "half-written", "damaged")))
    sys.exit(1 if any(faults.values()) else 0)


def started(repository: Path, folder: Path) -> TritonServer:
    server = TritonServer(repository, folder / "gallery.sqlite", grpc_port=0, metrics_port=0, log=folder / "triton.log")
    server.start()
    return server


def index_and_kill(server: TritonServer, victim: str, round: int, chance: random.Random) -> dict[str, str]:
    """Index in another process, kill something, and return what was acknowledged: id and what its row must say."""
    command = [sys.executable, __file__, "--index", server.url, str(round)]
    indexer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert indexer.stdout is not None
    try:
        lines = [indexer.stdout.readline()]
        time.sleep(chance.random() * 1.5)
        if victim == "indexer":
            indexer.kill()
        else:
            os.kill(chance.choice(processes_of(victim)), signal.SIGKILL)
        # What a killed process printed last may be cut off.
        lines += [line for line in indexer.communicate(timeout=120)[0].splitlines(keepends=True) if line[-1] == "\n"]
    finally:
        indexer.kill()
        indexer.communicate()
    return dict(line.split() for line in lines)


def processes_of(victim: str) -> list[int]:
    """Process ids of a part of the server; its keeper, which names it as well, is no victim."""
    return [
        id
        for id, line in children(os.getpid()).items()
        if VICTIMS[victim] in line and Path(line.split()[0]).name in ("tritonserver", "triton_python_backend_stub")
    ]


def index_for_ever(url: str, round: str) -> None:
    """Index until a call fails, eight images at once, and print each id that is acknowledged, with its note."""
    generator = np.random.default_rng(0)
    images = []
    for pixels in generator.integers(0, 256, (IMAGES, 40, 20, 3), np.uint8):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG")
        images.append(stream.getvalue())

    def put(number: int) -> str:
        # Every third is written a second time, with another note: either is whole, but not older than acknowledged.
        id, note = f"{round}-{number - number % 3 if number % 3 == 1 else number}", f"note-{number}"
        client.index(images[number % IMAGES], id, {"camera": round, "note": note, "again": note})
        return f"{id} {note}"

    with SearchClient(url, timeout=30) as client, ThreadPoolExecutor(8) as pool:
        for start in range(0, 1_000_000, 3):
            try:
                # The two writes of one id follow each other.
                print(put(start), flush=True)
                print(*pool.map(put, (start + 1, start + 2)), sep="\n", flush=True)
            except DescryError:
                return


def faults_of(server: TritonServer, acknowledged: dict[str, str]) -> Counter[str]:
    """What is wrong with the gallery."""
    faults = Counter[str]()
    with SearchClient(server.url, timeout=60) as client:
        checked = client.verify()
        faults["damaged"] += len(checked.damaged) + len(checked.problems)
        rows: dict[str, dict] = {}
        for page in client.pages(vectors=False):
            rows |= zip(page.ids, page.metadata, strict=True)
    for row in rows.values():
        faults["half-written"] += row.get("note") != row.get("again")
    for id, note in acknowledged.items():
        number = int(note.removeprefix("note-"))
        written = int(rows[id]["note"].removeprefix("note-")) if id in rows else -1
        # The second write of an id may have been carried out without its acknowledgement having arrived.
        faults["lost"] += written not in (number, number + 1 if number % 3 == 0 else number)
    return +faults


if __name__ == "__main__":
    main()
