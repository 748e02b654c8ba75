"""The JSON `filter` of a search: which rows are ranked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from gallery_row import InvalidRequest, json_object, microseconds
from row_table import METADATA_COLUMNS, RowTable, Scalar, scalar

KEYS = ("camera", "track", "time", "metadata")
TIMES = ("from", "to")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Filter:
    """What a row must be to be ranked; None of a part keeps all rows.

    Attributes:
        cameras, tracks: one of these; the empty text is that of a row without.
        start, end: in microseconds since 1970; from `start` on and before `end`. Rows without a time are not kept.
        metadata: for each key one of these values.
    """

    cameras: frozenset[str] | None = None
    tracks: frozenset[str] | None = None
    start: int | None = None
    end: int | None = None
    metadata: Mapping[str, frozenset[Scalar]] = field(default_factory=dict)

    def mask(self, table: RowTable) -> np.ndarray:
        """Which rows of the table are ranked, bool [rows]."""
        kept = np.ones(len(table), bool)
        if self.cameras is not None:
            kept &= table.cameras.among(self.cameras, len(table))
        if self.tracks is not None:
            kept &= table.tracks.among(self.tracks, len(table))
        if self.start is not None or self.end is not None:
            kept &= table.between(self.start, self.end)
        for key, values in self.metadata.items():
            kept &= table.metadata_column(key).among(values, len(table))
        return kept


EVERYTHING = Filter()


def read_filter(text: str) -> Filter:
    """The filter in JSON.

    Raises:
        InvalidRequest: not as docs/wire.md says; the message names the valid keys.
    """
    content = json_object("filter", text)
    _known("filter", content, KEYS)
    parts: dict[str, Any] = {}
    for key, name in (("camera", "cameras"), ("track", "tracks")):
        if key in content:
            parts[name] = _values(f"filter {key!r}", content[key], "texts", _as_text)
    if "time" in content:
        times = _object("filter 'time'", content["time"])
        _known("filter 'time'", times, TIMES)
        for key, name in (("from", "start"), ("to", "end")):
            if key in times:
                parts[name] = microseconds(f"filter 'time' {key!r}", times[key])
    if "metadata" in content:
        wanted = _object("filter 'metadata'", content["metadata"])
        if len(wanted) > METADATA_COLUMNS:
            raise InvalidRequest(f"filter 'metadata' has {len(wanted)} keys, above {METADATA_COLUMNS}")
        parts["metadata"] = {
            key: _values(f"filter 'metadata' {key!r}", values, "texts, numbers and booleans", scalar)
            for key, values in wanted.items()
        }
    return Filter(**parts)


def _known(name: str, content: Mapping[str, Any], valid: tuple[str, ...]) -> None:
    unknown = sorted(set(content) - set(valid))
    if unknown:
        raise InvalidRequest(f"{name} {unknown[0]!r} is not known; valid: {', '.join(valid)}")


def _object(name: str, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InvalidRequest(f"{name} must be a JSON object, got {content!r}")
    return content


def _values(name: str, content: Any, kind: str, read: Callable[[Any], Value | None]) -> frozenset[Value]:
    values = [read(value) for value in content] if isinstance(content, list) else [None]
    if None in values:
        raise InvalidRequest(f"{name} must be a list of {kind}, got {content!r}")
    return frozenset(values)  # type: ignore[arg-type]


def _as_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
