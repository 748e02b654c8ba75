"""Hostile requests by the thousand against the real server: what it answers, whether it lives, what memory it keeps.

python bench/fuzz.py [--count 10000] [--seed 0] [--in-flight 8]
"""

import argparse
import os
import re
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from hostile import Hostile, complaint, hostile, send
from processes import children, memory_of, processes_of_server
from tiny_models import tiny_repository

from descry.client import SearchClient
from descry.client.serve import TritonServer

NORMAL, ROWS = "fuzz-normal", 20
IDLE_SECONDS = 20
COMPLAINTS_SHOWN = 40
PROCESSES_SHOWN = 4
MODEL_IN = re.compile(r"/models/(\w+)/")
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@dataclass
class Outcome:
    """What came of the requests.

    Attributes:
        statuses: how often each kind was answered with each status.
        complaints: one line each, with the kind and what was sent.
        slowest: seconds of the slowest answer, and what was asked.
    """

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")


def attack(url: str, requests: Iterator[Hostile], in_flight: int = 8, seconds: float = 120) -> Outcome:
    """Send all requests, some at once."""
    outcome, waiting = Outcome(), deque[tuple[Hostile, Future]]()

    def sent(case: Hostile) -> tuple[float, tuple]:
        started = time.monotonic()
        return started, (*send(channel, case.message, seconds), time.monotonic())

    def read() -> None:
        case, future = waiting.popleft()
        started, (status, text, response, ended) = future.result()
        outcome.statuses[case.kind, status] += 1
        outcome.slowest = max(outcome.slowest, (ended - started, f"{case.kind}: {case.what}"))
        if found := complaint(case, status, text, response):
            outcome.complaints.append(f"{case.kind}: {case.what}: {found}")

    with grpc.insecure_channel(url, options=OPTIONS) as channel, ThreadPoolExecutor(in_flight) as pool:
        for case in requests:
            waiting.append((case, pool.submit(sent, case)))
            if len(waiting) >= 2 * in_flight:
                read()
        while waiting:
            read()
    return outcome


def fill(client: SearchClient) -> None:
    """Rows that a normal query finds."""
    for number in range(ROWS):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 20, 3), np.uint8)
        client.index(Image.fromarray(pixels), f"{NORMAL}/{number}", {"camera": NORMAL, "number": number})


def normal_answer(client: SearchClient) -> list[tuple]:
    """What a normal query and a normal photo are answered."""
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 20, 3), np.uint8))
    hits = client.search({"gender": "female", "hat": "no"}, ROWS, cameras=[NORMAL])
    hits += client.similar(image, {"upper_color": "red"}, ROWS, cameras=[NORMAL])
    return [(hit.id, hit.distance, dict(hit.metadata)) for hit in hits]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--in-flight", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gallery, log = folder / "gallery.sqlite", folder / "triton.log"
        with TritonServer(tiny_repository(folder / "models"), gallery, grpc_port=0, metrics_port=0, log=log) as server:
            sys.exit(run(server, options.count, options.seed, options.in_flight))


def run(server: TritonServer, count: int, seed: int, in_flight: int) -> int:
    """Attack twice, with other requests: the second time memory has nothing new to grow for."""
    failures = 0
    with SearchClient(server.url, timeout=120) as client:
        fill(client)
        before, levels = normal_answer(client), dict[int, float]()
        print(f"before: {memory(server, levels)}", flush=True)
        for half in range(2):
            started = time.monotonic()
            outcome = attack(server.url, hostile(seed + half, count // 2), in_flight)
            print(f"{count // 2} requests in {time.monotonic() - started:.0f} s: {memory(server, levels)}")
            report(outcome)
            same = normal_answer(client) == before
            print(f"a normal query answers the same: {same}; server alive: {server.alive()}", flush=True)
            failures += len(outcome.complaints) + (not same)
        time.sleep(IDLE_SECONDS)
        print(f"after {IDLE_SECONDS} s of rest: {memory(server, levels)}")
        checked = client.verify()
        print(f"gallery: {checked.rows} rows, {len(checked.damaged)} damaged, problems {checked.problems}")
    return 1 if failures or not checked.sound or not server.alive() else 0


def memory(server: TritonServer, before: dict[int, float]) -> str:
    """All processes together, and those that grew most."""
    found = {id: memory_of([id])[1] for id in processes_of_server(server.grpc_port)}
    resident, own = memory_of(list(found))
    grown = {id: amount - before.setdefault(id, amount) for id, amount in found.items()}
    lines, shown = children(os.getpid()), []
    for id in sorted(grown, key=grown.__getitem__, reverse=True)[:PROCESSES_SHOWN]:
        model = MODEL_IN.search(lines.get(id, ""))
        shown.append(f"{model[1] if model else 'tritonserver'} {grown[id]:+.0f}")
    return f"resident {resident:.0f} MiB, of which not shared {own:.0f} MiB ({', '.join(shown)})"


def report(outcome: Outcome) -> None:
    """Statuses by kind, complaints by what they have in common."""
    for kind in dict.fromkeys(kind for kind, _ in outcome.statuses):
        counts = {status: n for (of, status), n in outcome.statuses.items() if of == kind}
        print(f"  {kind}: " + ", ".join(f"{status} {n}" for status, n in sorted(counts.items())))
    print(f"  slowest answer: {outcome.slowest[0]:.1f} s ({outcome.slowest[1]})")
    print(f"  complaints: {len(outcome.complaints)}")
    for line in outcome.complaints[:COMPLAINTS_SHOWN]:
        print(f"    {line}")


if __name__ == "__main__":
    main()
