"""What the labels of a training split say: its person categories and the patterns inside each attribute group."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from descry.trainer.losses import IGNORE
from descry.trainer.schema import UNKNOWN, AttributeSchema

# At a time: against 10 000 rows of a table 160 MB.
MATCHED_ROWS = 4096


@dataclass(frozen=True)
class TrainingLabels:
    """Categories and group patterns of a training split; saved with the weights, because both encoders need them.

    Attributes:
        categories: uint8 [C, N], the distinct fully known attribute vectors, in lexicographic order.
        counts: int64 [C], images of each.
        patterns: per group uint8 [K_g, size_g], the distinct values of the group (a choice: each value, and none if
            seen).
        ratios: float32 [N], share of ones among the known labels of each attribute.
        persons: int64 [P], the known persons, ascending; empty = none is known.
        appearances: uint8 [R, N], the distinct attribute vectors of each person, person after person; an image of an
            unknown person stands for one.
        owners: int64 [R], whose each is: one number a person.
    """

    categories: Tensor
    counts: Tensor
    patterns: tuple[Tensor, ...]
    ratios: Tensor
    persons: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    appearances: Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.uint8))
    owners: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    @classmethod
    def of(cls, attributes: np.ndarray, schema: AttributeSchema, persons: np.ndarray | None = None) -> "TrainingLabels":
        """Collect them from a label matrix uint8 [n, N] of 0, 1 and `UNKNOWN`.

        Args:
            attributes: one row an image.
            schema: meaning of its columns.
            persons: int64 [n], -1 where unknown; None = unknown of all.

        Raises:
            ValueError: no row has all attributes known.
        """
        persons = np.full(len(attributes), -1) if persons is None else persons
        complete = attributes[(attributes != UNKNOWN).all(axis=1)]
        if not len(complete):
            raise ValueError(
                f"none of the {len(attributes)} training rows has all {schema.size} attributes known, but a category "
                "is a full description: label some rows completely, or drop what nobody labelled from the schema"
            )
        categories, counts = np.unique(complete, axis=0, return_counts=True)
        patterns = tuple(torch.from_numpy(_patterns(attributes[:, where], group.kind)) for group, where in schema)
        ratios = torch.from_numpy(positive_ratios(attributes)).float()
        owners = np.where(persons < 0, persons.max(initial=-1) + 1 + np.arange(len(persons)), persons)
        pairs = np.unique(np.column_stack([owners, attributes]), axis=0)
        return cls(
            torch.from_numpy(categories),
            torch.from_numpy(counts),
            patterns,
            ratios,
            persons=torch.from_numpy(np.unique(persons[persons >= 0])).long(),
            appearances=torch.from_numpy(pairs[:, 1:].astype(np.uint8)),
            owners=torch.from_numpy(pairs[:, 0]).long(),
        )

    def group_labels(self, attributes: Tensor) -> Tensor:
        """Index of each row's pattern inside each group: int64 [n, G]; `IGNORE` where an element is unknown."""
        sizes = [pattern.shape[1] for pattern in self.patterns]
        return torch.stack(
            [
                match_rows(part, pattern)
                for part, pattern in zip(attributes.split(sizes, 1), self.patterns, strict=True)
            ],
            dim=1,
        )

    def person_labels(self, persons: Tensor) -> Tensor:
        """Index of each of `persons` int64 [n] among the known ones: int64 [n]; `IGNORE` where it is none of them."""
        known = self.persons.to(persons.device)
        if not len(known):
            return torch.full_like(persons, IGNORE)
        place = torch.searchsorted(known, persons).clamp(max=len(known) - 1)
        return torch.where(known[place] == persons, place, IGNORE)

    def category_labels(self, attributes: Tensor) -> Tensor:
        """Index of each row's category: int64 [n]; `IGNORE` where unknown or unseen."""
        return match_rows(attributes, self.categories)


def positive_ratios(attributes: np.ndarray) -> np.ndarray:
    """Share of ones among the known labels of each attribute: float64 [N] in 0..1, from a label matrix uint8 [n, N].

    Raises:
        ValueError: nobody labelled an attribute: no share of it is more right than another.
    """
    known = (attributes != UNKNOWN).sum(axis=0)
    if not known.all():
        raise ValueError(
            f"attribute column {np.flatnonzero(known == 0)[0]} is unknown in all {len(attributes)} rows: label some, "
            "or drop the attribute from the schema"
        )
    return (attributes == 1).sum(axis=0) / known


def _patterns(columns: np.ndarray, kind: str) -> np.ndarray:
    seen = np.unique(columns[(columns != UNKNOWN).all(axis=1)], axis=0)
    size = columns.shape[1]
    legal = np.array([[0], [1]], np.uint8) if kind == "binary" else np.eye(size, dtype=np.uint8)
    return np.unique(np.concatenate([seen, legal] if kind != "multi" or not len(seen) else [seen]), axis=0)


def match_rows(rows: Tensor, table: Tensor) -> Tensor:
    """Position in `table` uint8 [K, s] of each of `rows` uint8 [n, s]; `IGNORE` where it is not there: int64 [n]."""
    if not len(table):
        return torch.full((len(rows),), IGNORE, device=rows.device)
    pattern = table.to(rows.device).float()
    return torch.cat([_match_block(block, pattern) for block in rows.split(MATCHED_ROWS)])


def _match_block(rows: Tensor, pattern: Tensor) -> Tensor:
    ones = rows.float()
    mismatches = ones @ (1 - pattern).T + (1 - ones) @ pattern.T
    found = (mismatches == 0) & (rows != UNKNOWN).all(dim=1, keepdim=True)
    return torch.where(found.any(dim=1), found.int().argmax(dim=1), IGNORE)
