"""What a server answers, as frozen values. N = attributes of the schema, D = embedding length."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from descry.client.schema import Agreement, Prediction, Schema


@dataclass(frozen=True)
class TLS:
    """Certificates of a secure connection, PEM files: the server's authority, and this client's key and chain."""

    root_certificates: Path | None = None
    private_key: Path | None = None
    certificate_chain: Path | None = None


@dataclass(frozen=True)
class ModelInfo:
    """The model that a server runs; the names are those of docs/wire.md."""

    schema: Schema
    model_digest: str
    method: str
    par_weight: float
    max_par: float
    max_emb: float
    par_distance: str
    embedding_size: int
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Stats:
    """What a gallery holds; rows without a camera count under the empty name."""

    rows: int
    cameras: Mapping[str, int]
    first_time: str | None
    last_time: str | None
    gallery: str
    model_digest: str


@dataclass(frozen=True, eq=False)
class Hit:
    """One row of a ranking.

    Attributes:
        rank: 1 is the best.
        id: the row's key.
        distance: the fused distance; smaller is better.
        par_distance: its attribute part, divided by its maximum, before the weight.
        embedding_distance: its embedding part, divided by its maximum.
        metadata: what was given at index time.
        scores: float32 [N], probabilities in 0..1.
        terms: float32 [N], what each attribute adds to the attribute distance, 0 where nothing is stated.
        explain: computes `agreement`; most callers want that of a few hits only.
    """

    rank: int
    id: str
    distance: float
    par_distance: float
    embedding_distance: float
    metadata: Mapping[str, Any]
    scores: np.ndarray
    terms: np.ndarray
    explain: Callable[[], tuple[Agreement, ...]] = field(repr=False)

    @cached_property
    def agreement(self) -> tuple[Agreement, ...]:
        """One entry a stated group."""
        return self.explain()

    @property
    def image(self) -> str:
        """The image reference; the id where none was given."""
        return str(self.metadata.get("image") or self.id)


@dataclass(frozen=True, eq=False)
class Description:
    """A photo in attributes: `predictions` one a group, `scores` float32 [N] in 0..1, `embedding` float32 [D], unit."""

    predictions: tuple[Prediction, ...]
    scores: np.ndarray
    embedding: np.ndarray


@dataclass(frozen=True, eq=False)
class Match:
    """How one photo fits one description; see `Hit` for the fields."""

    distance: float
    par_distance: float
    embedding_distance: float
    scores: np.ndarray
    terms: np.ndarray
    agreement: tuple[Agreement, ...]
