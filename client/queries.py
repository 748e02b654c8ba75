"""Descriptions as one query, by the rule of docs/wire.md, "Confidence and witnesses"."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Query:
    """What is stated, and the plain descriptions whose mean embedding is sought.

    Attributes:
        attributes, known: float32 [N] in 0..1, for the attribute distance.
        shares: float64 [R] of each plain description; they add up to 1.
        plain_attributes, plain_known: float32 [R, N] of 0 and 1, for the attribute encoder.
    """

    attributes: np.ndarray
    known: np.ndarray
    shares: np.ndarray
    plain_attributes: np.ndarray
    plain_known: np.ndarray

    @property
    def plain(self) -> bool:
        """Whether it is a single plain description, which the server's ensembles take as it is."""
        return len(self.shares) == 1


def merge(witnesses: Sequence[tuple[np.ndarray, np.ndarray]]) -> Query:
    """The query for what witnesses state, each `attributes`, 0 or 1, and `known`, 0..1, float32 [N]: the mean of them.

    An element counts by the mean of its `known`, and is as present as the witnesses who know of it say, weighted by
    their `known`. A witness's statements of a confidence of at least t, for t evenly from 0 to 1, are plain
    descriptions; the embedding sought is the mean of theirs.
    """
    attributes, known = (np.stack(sides).astype(np.float64) for sides in zip(*witnesses, strict=True))
    total = known.sum(axis=0)
    present = np.divide((known * attributes).sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
    levels = [
        (width / len(witnesses), bits * (sure >= level), sure >= level)
        for bits, sure in zip(attributes, known, strict=True)
        for width, level in _levels(sure)
    ]
    shares, plain_attributes, plain_known = (np.stack(sides) for sides in zip(*levels, strict=True))
    return Query(
        # A weighted mean can leave 0..1 by a round-off, which the server refuses.
        np.clip(present, 0, 1).astype(np.float32),
        (total / len(witnesses)).astype(np.float32),
        shares,
        plain_attributes.astype(np.float32),
        plain_known.astype(np.float32),
    )


def combine(queries: Sequence[Query], embeddings: np.ndarray) -> np.ndarray:
    """The embedding [B, D] of each query, given those of all their plain descriptions [sum of R, D], unit or not."""
    starts = np.cumsum([0, *(len(query.shares) for query in queries[:-1])])
    shares = np.concatenate([query.shares for query in queries])[:, np.newaxis]
    return np.add.reduceat(shares * embeddings, starts, axis=0).astype(np.float32)


def _levels(known: np.ndarray) -> list[tuple[float, float]]:
    """The confidences that occur, and 1: each with its distance from the one below."""
    levels = np.unique(np.append(known[known > 0], 1.0))
    return list(zip(np.diff(levels, prepend=0.0).tolist(), levels.tolist(), strict=True))
