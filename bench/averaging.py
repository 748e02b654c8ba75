"""A gallery averaged over neighbours: what a server's start, and rows that come later, cost.

python bench/averaging.py [--rows 16483 50000] [--neighbours 10]

Random unit embeddings of 384 values (Descry's), 30 attributes, no server: the table that a server searches.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

MODELS = Path(__file__).parents[1] / "model_repository"
sys.path.append(str(MODELS / "gallery_search" / "1"))

from averaged_table import AveragedTable  # noqa: E402
from gallery import Rows  # noqa: E402
from par_distance import PAR_DISTANCES  # noqa: E402
from served_model import ServedModel  # noqa: E402

SIZE, ATTRIBUTES, LATER = 384, 30, (1, 64)
GROUPS = [{"name": f"a{number}", "values": ["no", "yes"], "kind": "binary"} for number in range(ATTRIBUTES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[16_483, 50_000])
    parser.add_argument("--neighbours", type=int, default=10)
    options = parser.parse_args()
    print(f"{'rows':>8}{'start, s':>12}" + "".join(f"{f'{count} more, s':>12}" for count in LATER))
    for rows in options.rows:
        generator, model = np.random.default_rng(0), model_of(options.neighbours)
        table = AveragedTable(model, PAR_DISTANCES[model.par_distance])
        seconds, first = [], 0
        for count in (rows, *LATER):
            table.put(random_rows(generator, first, count))
            first += count
            started = time.perf_counter()
            table.settle()
            seconds.append(time.perf_counter() - started)
        print(f"{rows:>8}" + "".join(f"{each:>12.2f}" for each in seconds), flush=True)


def model_of(neighbours: int) -> ServedModel:
    schema = {"name": "bench", "groups": GROUPS}
    return ServedModel(schema, "bench", "descry", 0.7, 1.0, 1.0, "likelihood", SIZE, (128, 64), neighbours)


def random_rows(generator: np.random.Generator, first: int, count: int) -> Rows:
    embeddings = generator.standard_normal((count, SIZE)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    names, empty = tuple(f"{first + number}" for number in range(count)), ("",) * count
    nothing, numbers = (None,) * count, tuple(range(first, first + count))
    scores = generator.random((count, ATTRIBUTES), np.float32)
    return Rows(numbers, names, empty, nothing, nothing, ("{}",) * count, embeddings, scores)


if __name__ == "__main__":
    main()
