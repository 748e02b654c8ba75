"""`attribute_search` over gRPC against the same search in process, on a gallery of 100 000 rows; ratio of medians.

python bench/search.py [--rows 100000] [--queries 200]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from untrained import SCHEMA, untrained_repository

from descry.client import SearchClient
from descry.client.serve import TritonServer

BLOCK, DROPPED = 25, 5


def fill(repository: Path, path: Path, rows: int) -> None:
    """Write random unit embeddings and scores straight into the gallery file."""
    from gallery import Gallery
    from gallery_row import Put, checked_put
    from served_model import ServedModel

    model = ServedModel.load(repository)
    gallery = Gallery(path, model)
    generator = np.random.default_rng(0)
    for start in tqdm(range(0, rows, 5000), desc="filling", unit="5000 rows"):
        embeddings = generator.standard_normal((5000, model.embedding_size)).astype(np.float32)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        scores = generator.random((5000, model.attribute_count), np.float32)
        puts: list[Put] = [
            checked_put(model, f"{start + row:06d}", json.dumps({"camera": str(row % 6)}), embeddings[row], scores[row])
            for row in range(min(5000, rows - start))
        ]
        gallery.write(puts)
    gallery.close()


def milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder = next(model for model in untrained_repository(folder, "resnet18", 96, 48, "float32")
                       if model.name == "attribute_encoder").traced  # fmt: skip
        path = folder / "gallery.sqlite"
        fill(folder / "models", path, options.rows)
        with (
            TritonServer(folder / "models", path, grpc_port=0, http_port=0, metrics_port=0, progress=print) as server,
            SearchClient(server.url, timeout=60) as client,
        ):
            compare(folder / "models", path, encoder, client, options.queries)


def compare(repository: Path, path: Path, encoder: torch.nn.Module, client: SearchClient, queries: int) -> None:
    """Time both searches."""
    from gallery import Gallery
    from ranking import Query, Ranking
    from served_model import ServedModel

    model = ServedModel.load(repository)
    ranking = Ranking(Gallery(path, model), model)
    torch.set_num_threads(1)
    generator = np.random.default_rng(1)
    groups = SCHEMA.groups

    def in_process(said: dict[str, str]) -> None:
        attributes, known = client.schema.encode(said)
        with torch.inference_mode():
            embedding = encoder(torch.from_numpy(attributes)[None], torch.from_numpy(known)[None])[0].numpy()
        ranking.search([Query(embedding, attributes, known, -1.0, 20)])

    def said() -> dict[str, str]:
        chosen = generator.choice(len(groups), 4, replace=False)
        return {groups[index].name: str(generator.choice(groups[index].values)) for index in chosen}

    # In turn, block by block: a drift of the machine's speed meets both, and neither runs on the other's caches.
    ours: list[float] = []
    served: list[float] = []
    for _ in tqdm(range(queries // BLOCK), desc="searching"):
        descriptions = [said() for _ in range(BLOCK + DROPPED)]
        for times, action in ((ours, in_process), (served, lambda each: client.search(each, k=20))):
            times += [milliseconds(partial(action, each)) for each in descriptions][DROPPED:]
    print(f"{len(ranking)} rows, k = 20, {queries} queries of 4 stated groups, milliseconds")
    print(f"{'':<14}{'p50':>8}{'p95':>8}{'min':>8}")
    for title, values in (("in process", ours), ("over gRPC", served)):
        print(f"{title:<14}{statistics.median(values):>8.2f}{np.percentile(values, 95):>8.2f}{min(values):>8.2f}")
    print(f"ratio of medians, gRPC / in process: {statistics.median(served) / statistics.median(ours):.2f}")


if __name__ == "__main__":
    main()
