"""PAR distances of a gallery, as matrix products: what a row keeps, what a query brings, and the terms of a hit."""

from typing import Protocol

import numpy as np

ROUND_OFF = 2.0**-24
# The least probability that a PAR score counts as, and the most nats that one attribute can cost.
FLOOR = 1e-3
MOST_NATS = 6.91


class ParDistance(Protocol):
    """How far stated attributes are from PAR scores: `finish(query_weights @ columns.T + offset)`."""

    def columns(self, scores: np.ndarray) -> np.ndarray:
        """float32 [rows, 2 N] kept for scores [rows, N]."""

    def query_weights(self, attributes: np.ndarray, known: np.ndarray) -> np.ndarray:
        """float32 [Q, 2 N] of attributes and known [Q, N]."""

    def offset(self, attributes: np.ndarray, known: np.ndarray) -> np.ndarray:
        """float32 [Q, 1] added to the products."""

    def finish(self, sums: np.ndarray) -> np.ndarray:
        """The distance of sums of terms."""

    def terms(self, attributes: np.ndarray, known: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """float64 [rows, N]: what each attribute [N] adds to the sum of each row, 0 where unknown."""

    def sum_error(self, known: np.ndarray) -> float:
        """How far float32 products may be from the sum of terms; known [N].

        A sum of 2 N products, whose factors are themselves rounded, is off by at most 2 N and a few round-offs times
        the sum of their magnitudes (Higham 2002, 3.1), which no attribute exceeds by more than its part of `known`.
        """

    def largest(self, count: int) -> float:
        """The largest distance of `count` attributes."""


class Euclidean:
    """The root of sum known (b - p)^2."""

    def columns(self, scores: np.ndarray) -> np.ndarray:
        """See `ParDistance`: the scores and their squares."""
        return np.hstack([scores, scores**2])

    def query_weights(self, attributes: np.ndarray, known: np.ndarray) -> np.ndarray:
        """See `ParDistance`."""
        return np.hstack([-2 * attributes * known, known])

    def offset(self, attributes: np.ndarray, known: np.ndarray) -> np.ndarray:
        """See `ParDistance`."""
        return (known * attributes**2).sum(axis=1, keepdims=True)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        """See `ParDistance`."""
        return np.sqrt(np.maximum(sums, 0))

    def terms(self, attributes: np.ndarray, known: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """See `ParDistance`: squared differences."""
        return (attributes.astype(np.float64) - scores) ** 2 * known

    def sum_error(self, known: np.ndarray) -> float:
        """See `ParDistance`."""
        return (2 * len(known) + 8) * ROUND_OFF * 4 * float(known.sum())

    def largest(self, count: int) -> float:
        """See `ParDistance`."""
        return float(np.sqrt(count))


class Likelihood:
    """- sum known (b log p + (1 - b) log(1 - p)), scores kept `FLOOR` away from 0 and 1."""

    def columns(self, scores: np.ndarray) -> np.ndarray:
        """See `ParDistance`: what it costs to state an attribute, and to deny it."""
        return self._nats(scores).astype(np.float32)

    def query_weights(self, attributes: np.ndarray, known: np.ndarray) -> np.ndarray:
        """See `ParDistance`."""
        return np.hstack([known * attributes, known * (1 - attributes)])

    def offset(self, attributes: np.ndarray, known: np.ndarray) -> np.ndarray:
        """See `ParDistance`."""
        return np.zeros((len(known), 1), np.float32)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        """See `ParDistance`."""
        return np.maximum(sums, 0)

    def terms(self, attributes: np.ndarray, known: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """See `ParDistance`: nats."""
        stated, denied = np.split(self._nats(scores), 2, axis=-1)
        bits = attributes.astype(np.float64)
        return known * (bits * stated + (1 - bits) * denied)

    def sum_error(self, known: np.ndarray) -> float:
        """See `ParDistance`."""
        return (2 * len(known) + 8) * ROUND_OFF * MOST_NATS * float(known.sum())

    def largest(self, count: int) -> float:
        """See `ParDistance`."""
        return MOST_NATS * count

    @staticmethod
    def _nats(scores: np.ndarray) -> np.ndarray:
        kept = scores.astype(np.float64)
        sides = np.concatenate([kept, 1 - kept], axis=-1)
        return -np.log(np.clip(sides, FLOOR, 1 - FLOOR))


PAR_DISTANCES: dict[str, ParDistance] = {"euclidean": Euclidean(), "likelihood": Likelihood()}
