"""Searches done the slow way, row by row in Python floats, to compare the gallery's ranking with."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from gallery import Gallery
from gallery_row import Put, checked_put
from query import Query
from ranking import Ranking
from served_model import ServedModel
from test_gallery import ATTRIBUTES, EMBEDDING, MODEL


def make_rows(generator: np.random.Generator, metadata: list[dict[str, Any]], levels: int = 0) -> list[Put]:
    """A row for each metadata, in random order of ids; with `levels` values so coarse that distances tie often."""
    embeddings = generator.normal(size=(len(metadata), EMBEDDING))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = generator.random((len(metadata), ATTRIBUTES))
    if levels:
        embeddings, scores = np.round(embeddings * levels) / levels, np.round(scores * levels) / levels
    return [
        checked_put(
            MODEL, f"{number:03}", json.dumps(content), embedding.astype(np.float32), row_scores.astype(np.float32)
        )
        for number, content, embedding, row_scores in zip(
            generator.permutation(len(metadata)), metadata, embeddings, scores, strict=True
        )
    ]


def make_query(generator: np.random.Generator, k: int, levels: int = 0, **changed: Any) -> Query:
    """A query whose statements are partly sure and partly true."""
    embedding = generator.normal(size=EMBEDDING) / 3
    steps = levels or 1_000_000
    values = {
        "embedding": np.round(embedding * steps) / steps,
        "attributes": np.round(generator.random(ATTRIBUTES) * steps) / steps,
        "known": np.round(generator.random(ATTRIBUTES) * steps) / steps * (generator.random(ATTRIBUTES) < 0.7),
    }
    vectors = {name: vector.astype(np.float32) for name, vector in values.items()}
    return Query(**(vectors | {"par_weight": 0.5, "k": k} | changed))


def distance(row: Put, query: Query, model: ServedModel) -> np.float32:
    """The fused distance of one row."""
    stated = zip(query.attributes.tolist(), row.scores.tolist(), query.known.tolist(), strict=True)
    if model.par_distance == "likelihood":
        kept = ((b, min(max(p, 1e-3), 1 - 1e-3), min(max(1 - p, 1e-3), 1 - 1e-3), known) for b, p, known in stated)
        par = -math.fsum(known * (b * math.log(p) + (1 - b) * math.log(q)) for b, p, q, known in kept)
    else:
        par = math.sqrt(math.fsum(known * (b - p) ** 2 for b, p, known in stated))
    cosine = math.fsum(q * g for q, g in zip(query.embedding.tolist(), row.embedding.tolist(), strict=True))
    return np.float32(query.par_weight * par / model.max_par + (1 - cosine) / model.max_emb)


def filled(folder: Path, rows: list[Put], model: ServedModel = MODEL) -> Ranking:
    """A ranking of the gallery in `folder`, with these rows."""
    gallery = Gallery(folder / "gallery.sqlite", model)
    gallery.write(rows)
    return Ranking(gallery, model)
