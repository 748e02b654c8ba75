"""What a server answers, as frozen values. N = attributes of the schema, D = embedding length."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from descry.client.errors import ServerFailed
from descry.client.groups import Prediction
from descry.client.schema import Agreement, Schema

UNCALIBRATED = "uncalibrated"
CERTAIN = 1e-6  # as near to 0 and 1 as a score comes before it is calibrated, docs/wire.md


@dataclass(frozen=True)
class TLS:
    """Certificates of a secure connection, PEM files: the server's authority, and this client's key and chain.

    `server_name` is the name in the server's certificate, where it is not the host that is called.
    """

    root_certificates: Path | None = None
    private_key: Path | None = None
    certificate_chain: Path | None = None
    server_name: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """The model that a server runs; the names are those of docs/wire.md.

    `calibration` is None where the model was not calibrated; docs/calibration.md says what it holds.
    """

    schema: Schema
    model_digest: str
    method: str
    par_weight: float
    max_par: float
    max_emb: float
    par_distance: str
    embedding_size: int
    image_size: tuple[int, int]
    calibration: Mapping[str, Any] | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ModelInfo":
        """Read what `gallery_info` says of the model.

        Raises:
            ServerFailed: a key is missing.
        """
        try:
            return cls(
                Schema.from_json(content["schema"]),
                str(content["model_digest"]),
                str(content["method"]),
                float(content["par_weight"]),
                float(content["max_par"]),
                float(content["max_emb"]),
                str(content["par_distance"]),
                int(content["embedding_size"]),
                (int(content["image_size"][0]), int(content["image_size"][1])),
                content.get("calibration"),
            )
        except KeyError as error:
            raise ServerFailed(f"the server does not state {error} of its model") from error

    @cached_property
    def temperatures(self) -> np.ndarray:
        """What the logit of each score is divided by, float64 [N]; 1 where nothing was fitted."""
        fitted = (self.calibration or {}).get("temperatures", {})
        return np.array([float(fitted.get(element, 1.0)) for element in self.schema.elements])

    def calibrated(self, scores: np.ndarray) -> np.ndarray:
        """The probabilities that scores [..., N] are worth: sigmoid(logit(score) / temperature)."""
        kept = np.clip(scores.astype(np.float64), CERTAIN, 1 - CERTAIN)
        odds = (1 / kept - 1) ** (1 / self.temperatures)
        return np.where(self.temperatures == 1, scores, 1 / (1 + odds)).astype(np.float32)


@dataclass(frozen=True)
class Stats:
    """What a gallery holds; rows without a camera count under the empty name."""

    rows: int
    cameras: Mapping[str, int]
    first_time: str | None
    last_time: str | None
    gallery: str
    model_digest: str


@dataclass(frozen=True)
class Frame:
    """An image of a ranked track: its id and its fused distance."""

    id: str
    distance: float


@dataclass(frozen=True, eq=False)
class Hit:
    """One row of a ranking; where tracks are ranked, the best image of one.

    Attributes:
        rank: 1 is the best.
        id: the row's key.
        distance: the fused distance, of the track where tracks are ranked; smaller is better.
        par_distance: its attribute part, divided by its maximum, before the weight.
        embedding_distance: its embedding part, divided by its maximum.
        metadata: what was given at index time.
        scores: float32 [N], probabilities in 0..1, as the model gives them.
        terms: float32 [N], what each attribute adds to the attribute distance, 0 where nothing is stated.
        probability: that the hit is what the description says; None where the model was not calibrated for it.
        frames: the track's images, best first, 100 at most; empty where images are ranked.
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
    probability: float | None
    frames: tuple[Frame, ...]
    explain: Callable[[], tuple[Agreement, ...]] = field(repr=False)

    @cached_property
    def agreement(self) -> tuple[Agreement, ...]:
        """One entry a stated group."""
        return self.explain()

    @property
    def image(self) -> str:
        """The image reference; the id where none was given."""
        return str(self.metadata.get("image") or self.id)


class Ranking(list[Hit]):
    """A list of hits, best first, and what the server makes of the first one.

    Attributes:
        verdict: `match`; `no match`, where the first hit's probability is below the threshold or there is no hit; or
            `uncalibrated`, where there are no probabilities.
    """

    def __init__(self, hits: Iterable[Hit] = (), verdict: str = UNCALIBRATED) -> None:
        """Keep the hits and the verdict."""
        super().__init__(hits)
        self.verdict = verdict

    @property
    def probability(self) -> float | None:
        """That the first hit is what the description says; None without a hit or a calibration."""
        return self[0].probability if self else None


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
