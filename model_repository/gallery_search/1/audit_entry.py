"""What the audit log says of one row of a request. Importable without a server."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from served_model import ServedModel

# Rows under this id, and searches for this camera, are the server's and `descry health`'s own.
PROBED = "descry-health-check"
PROBE_FILTER = {"camera": [PROBED]}
PROBE_PRUNING = {"do": "prune", "camera": PROBED, "older_than": None, "dry_run": True}
LONGEST_TEXT = 4096
DESCRIPTION = ("attributes", "known")


def entries_of(model: ServedModel, inputs: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """What a request asks, one entry a row: each input [B, ...] under its name, a description by its elements' names.

    Long vectors and texts are named by the start of their SHA-256: a photo's embedding is recognised, not kept.
    """
    rows = min((len(values) for values in inputs.values()), default=0)
    names, entries = _elements(model.schema["groups"]), []
    for row in range(rows):
        entry = {name: _value(values[row]) for name, values in inputs.items() if name not in DESCRIPTION}
        if all(name in inputs for name in DESCRIPTION):
            entry["stated"] = _stated(names, *(inputs[name][row] for name in DESCRIPTION))
        entries.append(entry)
    return entries


def is_probe(entry: Mapping[str, Any], results: int | None) -> bool:
    """Whether a row is a health check: a search that finds nobody, a deletion of nobody's row, a pruning on trial."""
    if "operation" in entry:
        return entry["operation"] == "delete" and entry.get("id") == PROBED
    if "request" in entry:
        return entry["request"] == json.dumps(PROBE_PRUNING)
    return results == 0 and entry["filter"] == json.dumps(PROBE_FILTER)


def result_counts(outputs: Mapping[str, np.ndarray]) -> list[int]:
    """How many hits each row of an answer holds; `ids` [B, K] is padded with empty texts."""
    return [sum(1 for id in row if id) for row in outputs["ids"]]


def _stated(names: Sequence[str], attributes: np.ndarray, known: np.ndarray) -> dict[str, Any]:
    """What a description [N] states: the value of each known element, with the confidence where it is not 1."""
    cells = zip(names, attributes.tolist(), known.tolist(), strict=True)
    return {
        name: _short(value) if certainty == 1 else [_short(value), _short(certainty)]
        for name, value, certainty in cells
        if certainty
    }


def _elements(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the N elements, as `group=value`; a binary group's element means its second value."""
    return [
        f"{group['name']}={value}"
        for group in groups
        for value in (group["values"][1:] if group["kind"] == "binary" else group["values"])
    ]


def _value(values: np.ndarray) -> Any:
    """A row of a tensor as JSON."""
    cells = np.ravel(values)
    if cells.dtype == np.object_:
        texts = [_text(cell) for cell in cells]
        return texts[0] if len(texts) == 1 else texts
    if len(cells) != 1:
        return f"sha256:{hashlib.sha256(cells.tobytes()).hexdigest()[:16]}"
    return _number(cells[0])


def _text(cell: bytes) -> str:
    if len(cell) <= LONGEST_TEXT:
        return cell.decode(errors="replace")
    return f"sha256:{hashlib.sha256(cell).hexdigest()[:16]}"


def _number(cell: Any) -> Any:
    """A number that JSON has; a float32 with the digits that tell it from its neighbours."""
    if isinstance(cell, np.floating):
        return _short(float(cell)) if np.isfinite(cell) else str(cell)
    return int(cell)


def _short(value: float) -> float:
    """A float32 in as few digits as tell it from its neighbours: 0.7, not 0.699999988."""
    return value if value.is_integer() else float(str(np.float32(value)))
