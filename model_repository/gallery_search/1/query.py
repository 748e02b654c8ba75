"""One search as it reaches the ranking, and what is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from filters import EVERYTHING, Filter
from gallery_row import LARGEST_EMBEDDING_NORM, InvalidRequest, json_object
from served_model import ServedModel

MOST_HITS = 10_000
LARGEST_WEIGHT = 1e6
OPTIONS = ("rank", "by")
RANKS = ("images", "tracks")
TrackDistance = Literal["best", "mean"]


@dataclass(frozen=True)
class Query:
    """One search.

    Attributes:
        embedding: float32 [D]; cosine similarity is its inner product with a row's embedding.
        attributes: float32 [N], 0..1.
        known: float32 [N], 0..1: how much `attributes` counts.
        par_weight: weight of the PAR distance; negative: the weight measured on validation data.
        k: hits wanted, 1 to 10 000.
        filter: the rows to rank.
        by: None ranks images; else tracks, by the distance of their best image or by the mean distance of their images.
        threshold: of the match probability, 0..1; negative: the stored operating point.
        cancelled: says whether the caller still waits.
    """

    embedding: np.ndarray
    attributes: np.ndarray
    known: np.ndarray
    par_weight: float
    k: int
    filter: Filter = EVERYTHING
    by: TrackDistance | None = None
    threshold: float = -1.0
    cancelled: Callable[[], bool] = lambda: False

    def check(self, model: ServedModel) -> None:
        """Refuse a query that has no ranking.

        Raises:
            InvalidRequest: a vector, the weight, k or the threshold is out of range.
        """
        size, count = model.embedding_size, model.attribute_count
        given = {"query": (self.embedding, size), "attributes": (self.attributes, count), "known": (self.known, count)}
        for name, (vector, length) in given.items():
            if vector.shape != (length,):
                raise InvalidRequest(f"{name} must have {length} values, got {vector.size}")
            if not np.isfinite(vector).all():
                raise InvalidRequest(f"{name} holds NaN or infinity")
            if name != "query" and ((vector < 0) | (vector > 1)).any():
                raise InvalidRequest(f"{name} must lie in 0..1")
        if np.linalg.norm(self.embedding) > LARGEST_EMBEDDING_NORM:
            raise InvalidRequest(f"query is longer than {LARGEST_EMBEDDING_NORM:g}: send the encoder's output")
        if not self.par_weight <= LARGEST_WEIGHT:
            raise InvalidRequest(f"par_weight must be a number up to {LARGEST_WEIGHT:g}, got {self.par_weight:g}")
        if not 1 <= self.k <= MOST_HITS:
            raise InvalidRequest(f"k must be 1 to {MOST_HITS}, got {self.k}")
        if not self.threshold <= 1:
            raise InvalidRequest(f"threshold must be a probability in 0..1, or negative, got {self.threshold:g}")


def read_options(text: str) -> TrackDistance | None:
    """`Query.by` of the JSON in `options`.

    Raises:
        InvalidRequest: not as docs/wire.md says.
    """
    options = json_object("options", text)
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise InvalidRequest(f"options {unknown[0]!r} is not known; valid: {', '.join(OPTIONS)}")
    rank, by = options.get("rank", "images"), options.get("by", "best")
    for name, value, valid in (("rank", rank, RANKS), ("by", by, get_args(TrackDistance))):
        if value not in valid:
            raise InvalidRequest(f"options {name!r} must be one of {', '.join(valid)}, got {value!r}")
    return by if rank == "tracks" else None
