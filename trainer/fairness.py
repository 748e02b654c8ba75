"""Who is found, and who is recognized, better than others: results apart by the values of a few attributes."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from descry.trainer.metrics import (
    attribute_metrics,
    bootstrap_bounds,
    bootstrap_intervals,
    mean_metrics,
    recognize,
)
from descry.trainer.schema import UNKNOWN, AttributeSchema

# Attributes of who somebody is rather than of what they wear, where a dataset labels them.
PROTECTED = ("gender", "age", "ethnicity")


def values_of(attributes: Tensor, schema: AttributeSchema, name: str) -> Iterator[tuple[str, Tensor]]:
    """Each value of the attribute group `name` with the rows of uint8 [n, N] that have it, bool [n].

    A row whose label is unknown has no value; of a set, a row has each of its elements.
    """
    group = next(group for group in schema.groups if group.name == name)
    columns = attributes[:, schema.slices[name]]
    if group.kind == "binary":
        yield from ((value, columns[:, 0] == number) for number, value in enumerate(group.values))
    else:
        yield from ((value, columns[:, number] == 1) for number, value in enumerate(group.values))


def protected_groups(schema: AttributeSchema, names: Sequence[str] = PROTECTED) -> list[str]:
    """Those of `names` that the schema has."""
    return [group.name for group in schema.groups if group.name in names]


def search_by_value(measured: Tensor, described: Tensor, schema: AttributeSchema) -> dict[str, dict[str, Any]]:
    """How well people of each value are found.

    Args:
        measured: [Q, M], `query_metrics`.
        described: uint8 [Q, N], what the queries state.
        schema: meaning of the N attributes.

    Returns:
        By protected group and value, `mean_metrics` with `intervals`; values that no query has are left out. And by
        group `gap`: the largest difference of rank-1 and of mAP between two of its values.
    """
    found = {}
    for name in protected_groups(schema):
        values = {
            value: {**mean_metrics(measured[rows]), "intervals": bootstrap_intervals(measured[rows])}
            for value, rows in values_of(described, schema, name)
            if (~measured[rows, 0].isnan()).any()
        }
        found[name] = {"values": values, "gap": _gaps(values, ("rank1", "mAP"))}
    return found


def recognition_by_value(scores: Tensor, labels: Tensor, schema: AttributeSchema) -> dict[str, dict[str, Any]]:
    """How well people of each value are recognized.

    Args:
        scores: [n, N] in 0..1.
        labels: uint8 [n, N]; 255 = unknown.
        schema: meaning of the N attributes.

    Returns:
        By protected group and value: `images`, how many have it; `mA` over all other attributes; `groups`, of each of
        the other attribute groups the share recognized completely right; `group_accuracy`, an image's share of its
        known groups recognized right, with `interval`. And by group `gap`: the largest differences between two values,
        also of each attribute group (`groups`).
    """
    found = {}
    for name in protected_groups(schema):
        others = [group.name for group in schema.groups if group.name != name]
        values = {
            value: _recognition(scores[rows], labels[rows], schema, others)
            for value, rows in values_of(labels, schema, name)
            if rows.any()
        }
        gap: dict[str, Any] = _gaps(values, ("mA", "group_accuracy"))
        gap["groups"] = _gaps({value: measured["groups"] for value, measured in values.items()}, others)
        found[name] = {"values": values, "gap": gap}
    return found


def _recognition(scores: Tensor, labels: Tensor, schema: AttributeSchema, names: Sequence[str]) -> dict[str, Any]:
    """`recognition_by_value` of one value's images, over the attribute groups `names`."""
    columns = torch.cat([torch.arange(schema.size)[schema.slices[name]] for name in names])
    kept = labels[:, columns]
    right, known = recognize(scores, schema) == labels, labels != UNKNOWN
    right, known = (
        torch.stack([side[:, schema.slices[name]].all(dim=1) for name in names], dim=1) for side in (right, known)
    )
    right = right & known
    share = (right.sum(dim=1) / known.sum(dim=1))[known.any(dim=1), None]
    counts = known.sum(dim=0).tolist()
    groups = dict(zip(names, (right.sum(dim=0) / known.sum(dim=0)).tolist(), strict=True))
    return {
        "images": len(labels),
        "mA": attribute_metrics(scores[:, columns], kept, kept != UNKNOWN)["mA"],
        "group_accuracy": share.double().mean().item(),
        "interval": tuple(bootstrap_bounds(share)[0].tolist()),
        "groups": {name: groups[name] for name, count in zip(names, counts, strict=True) if count},
    }


def _gaps(values: dict[str, dict[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """Largest difference of each metric between two values; metrics that fewer than two values have are left out."""
    numbers = {name: [metrics[name] for metrics in values.values() if name in metrics] for name in names}
    return {name: max(found) - min(found) for name, found in numbers.items() if len(found) > 1}
