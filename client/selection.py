"""Which rows a search ranks, how, and how many hits it wants: all of a request but the description."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from descry.client.errors import InvalidRequest

MOST_HITS = 10_000  # of one search, docs/wire.md
MEASURED_WEIGHT = -1.0  # on the wire: the weight measured on validation data

Time: TypeAlias = str | datetime
TrackDistance: TypeAlias = Literal["best", "mean"]
Scalar: TypeAlias = str | int | float | bool


@dataclass(frozen=True)
class Selection:
    """See `SearchClient.search` for the fields."""

    k: int
    par_weight: float | None
    cameras: Sequence[str] | None
    tracks: Sequence[str] | None
    start: Time | None
    end: Time | None
    metadata: Mapping[str, Sequence[Scalar]] | None
    by_track: TrackDistance | None
    threshold: float | None = None

    def __post_init__(self) -> None:
        """Refuse a number or a name out of range."""
        if not 1 <= self.k <= MOST_HITS:
            raise InvalidRequest(f"k is a number of hits from 1 to {MOST_HITS}, not {self.k}")
        if self.by_track not in (None, *get_args(TrackDistance)):
            raise InvalidRequest(f"by_track is one of {', '.join(get_args(TrackDistance))}, not {self.by_track!r}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InvalidRequest(f"threshold is a probability from 0 to 1, not {self.threshold:g}")

    def tensors(self, rows: int) -> dict[str, np.ndarray]:
        """The inputs of docs/wire.md, the same for each of `rows` queries; optional ones where they are used."""
        tensors = {
            "par_weight": weight_tensor(self.par_weight, rows),
            "k": np.full((rows, 1), self.k, np.int32),
            "filter": _repeated(self._filter(), rows),
        }
        if self.by_track is not None:
            tensors["options"] = _repeated({"rank": "tracks", "by": self.by_track}, rows)
        if self.threshold is not None:
            tensors["threshold"] = np.full((rows, 1), self.threshold, np.float32)
        return tensors

    def _filter(self) -> dict[str, Any]:
        lists = {"camera": self.cameras, "track": self.tracks}
        kept: dict[str, Any] = {key: list(values) for key, values in lists.items() if values is not None}
        limits = {"from": self.start, "to": self.end}
        times = {
            key: time.isoformat() if isinstance(time, datetime) else time
            for key, time in limits.items()
            if time is not None
        }
        if times:
            kept["time"] = times
        if self.metadata:
            kept["metadata"] = {key: list(values) for key, values in self.metadata.items()}
        return kept


def weight_tensor(par_weight: float | None, rows: int = 1) -> np.ndarray:
    """`par_weight` on the wire, float32 [rows, 1].

    Raises:
        InvalidRequest: it is below 0 or no number.
    """
    if par_weight is not None and not par_weight >= 0:
        raise InvalidRequest(f"par_weight is a number from 0 on, not {par_weight:g}")
    return np.full((rows, 1), MEASURED_WEIGHT if par_weight is None else par_weight, np.float32)


def _repeated(content: Mapping[str, Any], rows: int) -> np.ndarray:
    return np.full((rows, 1), json.dumps(content).encode(), np.object_)
