"""`python -m descry.demo.map`: lays the gallery's embeddings out on the plane, for the page's Insight tab.

It reads the rows through the server, so it needs a key with the role `admin` where the server asks for one.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from descry.client import DescryError, SearchClient
from descry.client.cli import server_flags
from descry.client.commands import connect
from descry.client.flags import positive
from descry.demo.embedding_map import EmbeddingMap

MOST = 5000
FEW = 4  # rows, below which neither method has anything to lay out
SEED = 0


def main(arguments: list[str] | None = None) -> int:
    """Write the map; 0, or 1 with the reason."""
    parser = argparse.ArgumentParser(prog="python -m descry.demo.map", description=__doc__, parents=[server_flags()])
    parser.add_argument("--out", type=Path, default=Path("map.npz"), metavar="FILE", help="the map (%(default)s)")
    parser.add_argument(
        "--most", type=positive, default=MOST, metavar="ROWS", help="a random sample of more (%(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        with connect(options) as client:
            made = make_map(client, options.most)
        made.save(options.out)
    except DescryError as error:
        print(f"descry.demo.map: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {len(made.ids)} images, {made.method}")
    print(f"next: python -m descry.demo --map {options.out}", file=sys.stderr)
    return 0


def make_map(client: SearchClient, most: int = MOST) -> EmbeddingMap:
    """The map of a gallery, of a random sample where it has more than `most` rows."""
    generator = np.random.default_rng(SEED)
    wanted = client.stats().rows
    share = min(1.0, most / max(1, wanted))
    ids, embeddings, scores = [], [], []
    for page in client.pages():
        if page.embeddings is None or page.scores is None:
            continue
        for index in np.flatnonzero(generator.random(len(page.ids)) < share):
            ids.append(page.ids[index])
            embeddings.append(page.embeddings[index])
            scores.append(page.scores[index])
    if len(ids) < FEW:
        raise DescryError(f"the gallery has {len(ids)} rows, too few for a map; fill it with `descry index FOLDER`")
    places, method = lay_out(np.stack(embeddings))
    low, high = places.min(axis=0), places.max(axis=0)
    return EmbeddingMap(
        ids, (places - low) / np.maximum(high - low, 1e-9), np.stack(scores), client.model.model_digest, method
    )


def lay_out(embeddings: np.ndarray) -> tuple[np.ndarray, str]:
    """Places [n, 2] of unit embeddings [n, D], and the method: t-SNE of cosines; without scikit-learn, PCA."""
    try:
        from sklearn.manifold import TSNE
    except ModuleNotFoundError:
        centred = embeddings - embeddings.mean(axis=0)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        return centred @ axes[:2].T, "PCA (t-SNE needs scikit-learn)"
    perplexity = min(30.0, (len(embeddings) - 1) / 3)
    return TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=SEED).fit_transform(
        embeddings
    ), "t-SNE"


if __name__ == "__main__":
    sys.exit(main())
