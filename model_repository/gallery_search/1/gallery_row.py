"""A row of the gallery as a caller sends it, and what is refused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
from served_model import ServedModel

LONGEST_ID_BYTES = 512
LONGEST_METADATA_BYTES = 65_536
LARGEST_EMBEDDING_NORM = 100.0
DEEPEST_JSON = 32
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
TEXT_KEYS = ("image", "camera", "time", "track")


class InvalidRequest(ValueError):
    """The caller's mistake; the message says what is wrong and what is valid, and is sent to the caller."""


class Cancelled(RuntimeError):
    """The caller has gone, or its deadline has passed: nobody waits for the answer."""


@dataclass(frozen=True)
class Put:
    """A checked row to write.

    Attributes:
        id: key of the row.
        texts: `image`, `camera`, `time` and `track`, each None where the metadata has none.
        metadata: the JSON object as given.
        embedding: float32 [D].
        scores: float32 [N], 0..1.
    """

    id: str
    texts: tuple[str | None, ...]
    metadata: str
    embedding: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Update:
    """New metadata of a row that keeps its embedding and scores; the fields are those of `Put`."""

    id: str
    texts: tuple[str | None, ...]
    metadata: str


@dataclass(frozen=True)
class Delete:
    """The id of a row to delete."""

    id: str


def checked_put(model: ServedModel, id: str, metadata: str, embedding: np.ndarray, scores: np.ndarray) -> Put:
    """A row to write, checked against the model.

    Raises:
        InvalidRequest: the id, the metadata or a value is wrong.
    """
    row = checked_update(id, metadata)
    _check_vector("embedding", embedding, model.embedding_size)
    _check_vector("scores", scores, model.attribute_count)
    if np.linalg.norm(embedding) > LARGEST_EMBEDDING_NORM:
        raise InvalidRequest("embedding is not of unit length: send the image encoder's output")
    if scores.min() < 0 or scores.max() > 1:
        raise InvalidRequest(f"scores must lie in 0..1, got {scores.min():g} to {scores.max():g}")
    return Put(row.id, row.texts, row.metadata, embedding, scores)


def checked_update(id: str, metadata: str) -> Update:
    """Metadata to write, checked.

    Raises:
        InvalidRequest: the id or the metadata is wrong.
    """
    check_id(id)
    fields = json_object("metadata", metadata)
    if len(metadata.encode()) > LONGEST_METADATA_BYTES:
        raise InvalidRequest(f"metadata of {id!r} is longer than {LONGEST_METADATA_BYTES} bytes")
    texts = {key: _text(key, fields.get(key)) for key in TEXT_KEYS}
    texts["time"] = utc_time(texts["time"])
    return Update(id, tuple(texts.values()), metadata)


def check_id(id: str) -> str:
    """The id itself; refuses one that is no text of 1 to 512 bytes."""
    size = len(whole_text("id", id).encode())
    if not 1 <= size <= LONGEST_ID_BYTES:
        raise InvalidRequest(f"id must have 1 to {LONGEST_ID_BYTES} bytes, got {size}")
    return id


def json_object(name: str, text: str) -> dict[str, Any]:
    """The JSON object in `text`; `name` says in errors what it is."""
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidRequest(f"{name} must be a JSON object, got {text[:40]!r}")
    if _deeper(content, DEEPEST_JSON):
        raise InvalidRequest(f"{name} is nested deeper than {DEEPEST_JSON} levels")
    return content


def microseconds(name: str, value: Any) -> int:
    """An ISO 8601 time in microseconds since 1970, in UTC where it names no zone; `name` says in errors what it is."""
    time = _parsed_time(name, whole_text(name, value))
    return (time.replace(tzinfo=timezone.utc) - EPOCH) // timedelta(microseconds=1)


def _deeper(content: Mapping[str, Any], levels: int) -> bool:
    """Whether JSON is nested deeper than so many levels: whoever reads it once more might not come to its end."""
    layer: list[Any] = [content]
    for _ in range(levels):
        children = (each.values() if isinstance(each, dict) else each for each in layer)
        layer = [child for some in children for child in some if isinstance(child, (dict, list))]
    return bool(layer)


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _text(key: str, value: Any) -> str | None:
    return None if value is None else whole_text(f"metadata {key!r}", value)


def whole_text(name: str, value: Any) -> str:
    """The text itself; refuses what is none, and what SQLite would not take or not compare to its end."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a text, got {value!r}")
    if "\0" in value:
        raise InvalidRequest(f"{name} holds the character U+0000")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name} holds half a character (a lone surrogate)") from error
    return value


def utc_time(value: str | None) -> str | None:
    """The time as ISO 8601, in UTC when it names a zone, so that times order as texts."""
    if not value:
        return None
    return _parsed_time("metadata 'time'", value).isoformat()


def _parsed_time(name: str, value: str) -> datetime:
    try:
        time = datetime.fromisoformat(value.replace("Z", "+00:00"))
        return time.astimezone(timezone.utc) if time.tzinfo else time
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{name} must be ISO 8601, such as 2024-05-01T12:00:00, got {value!r}") from error


def _check_vector(name: str, vector: np.ndarray, size: int) -> None:
    if vector.shape != (size,):
        raise InvalidRequest(f"{name} must have {size} values, got {vector.size}")
    if not np.isfinite(vector).all():
        raise InvalidRequest(f"{name} holds NaN or infinity")
