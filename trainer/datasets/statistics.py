"""Counts of a dataset: what a paper's table of data says, so that the two can be laid side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from descry.trainer.datasets.persons import PersonDataset
from descry.trainer.schema import PARTS, UNKNOWN, AttributeSchema


def contradictions(
    schema: AttributeSchema, attributes: np.ndarray, names: Sequence[str], groups: Sequence[str]
) -> tuple[str, ...]:
    """Rows that set none or several values of a group that is meant to have one.

    Args:
        schema: of the labels.
        attributes: uint8 [n, N].
        names: of the n images.
        groups: those meant to have exactly one value; a group that the schema lacks is passed over.
    """
    found = []
    for group, where in schema:
        if group.name not in groups or group.kind == "binary":
            continue
        columns = attributes[:, where]
        for row in np.flatnonzero((columns != UNKNOWN).all(axis=1) & ((columns == 1).sum(axis=1) != 1)):
            found.append(
                (row, f"{names[row]}: {group.name} is {'+'.join(group.decode(columns[row]))}, one value is meant")
            )
    return tuple(text for _, text in sorted(found))


def categories(attributes: np.ndarray) -> np.ndarray:
    """The distinct complete rows of uint8 [n, N], in lexicographic order."""
    return np.unique(attributes[(attributes != UNKNOWN).all(axis=1)], axis=0)


def unseen(rows: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Whether each of `rows` uint8 [m, s] is absent from `training` uint8 [k, s]: bool [m]."""
    known = {row.tobytes() for row in training}
    return np.array([row.tobytes() not in known for row in rows], bool)


def semantic_ids(attributes: np.ndarray, schema: AttributeSchema) -> dict[str, np.ndarray]:
    """Cerberus's semantic IDs: per body part, the distinct joint values of its groups, uint8 [S, size of the part]."""
    columns = {
        part: [column for group, where in schema if group.part == part for column in range(where.start, where.stop)]
        for part in PARTS
    }
    return {part: categories(attributes[:, where]) for part, where in columns.items() if where}


def figures(dataset: PersonDataset) -> dict[str, int]:
    """Images, persons, categories and SIDs of each split, by the names that the datasets' `PUBLISHED` use."""
    counts: dict[str, int] = {}
    splits = [split for split in ("train", "val", "test", "distractor") if (dataset.splits == split).any()]
    training = dataset.subset("train")
    for split in splits:
        part = dataset.subset(split)
        counts[f"{split} images"] = len(part)
        if split == "distractor":
            continue
        if (part.persons >= 0).any():
            counts[f"{split} persons"] = len(np.unique(part.persons[part.persons >= 0]))
        counts |= _compared(
            split, "categories", {"": categories(part.attributes)}, {"": categories(training.attributes)}
        )
        counts |= _compared(
            split, "SIDs", semantic_ids(part.attributes, part.schema), semantic_ids(training.attributes, part.schema)
        )
    if dataset.queries.any():
        counts["re-ID queries"] = int(dataset.queries.sum())
    return counts


def _compared(split: str, noun: str, rows: dict[str, np.ndarray], training: dict[str, np.ndarray]) -> dict[str, int]:
    counts = {f"{split} {noun}": sum(map(len, rows.values()))}
    if split != "train":
        new = sum(int(unseen(rows[part], training[part]).sum()) for part in rows)
        counts[f"{split} {noun} unseen in training"] = new
    return counts


def describe(dataset: PersonDataset) -> dict[str, Any]:
    """What was trained on, as plain values; sizes and digests of the splits say whether two runs compare."""
    sizes = {split: len(dataset.subset(split)) for split in ("train", "val", "test")}
    origin = {"schema": dataset.schema.name, "protocol": dataset.protocol, "notes": list(dataset.notes)}
    return {"name": dataset.name, **sizes, **origin, "digests": dataset.digests()}
