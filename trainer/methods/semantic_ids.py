"""Semantic IDs (Cerberus, section 3.1.2): every combination of the attribute values that one body part shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor

from descry.trainer.labels import TrainingLabels, match_rows
from descry.trainer.schema import AttributeSchema

COMBINATIONS = ("legal", "seen")


@dataclass(frozen=True)
class SemanticIds:
    """The semantic IDs of one body part.

    Attributes:
        part: its name.
        columns: int64 [L], where its attributes lie in the attribute vector.
        table: uint8 [S, L], the attributes of each ID, in lexicographic order (A of Eq. 8).
    """

    part: str
    columns: Tensor
    table: Tensor

    def labels(self, attributes: Tensor) -> Tensor:
        """The ID of each of `attributes` uint8 [n, N]: int64 [n]; `IGNORE` where unknown, or none of these."""
        return match_rows(attributes[:, self.columns.to(attributes.device)], self.table)

    def count_persons(self, labels: TrainingLabels) -> Tensor:
        """Training persons that appear with each ID (N_g of Eq. 4): int64 [S]."""
        found = self.labels(labels.appearances)
        pairs = torch.unique(torch.stack([found, labels.owners], dim=1)[found >= 0], dim=0)
        return torch.bincount(pairs[:, 0], minlength=len(self.table))


def semantic_ids(
    schema: AttributeSchema, labels: TrainingLabels, combinations: str = "legal", limit: int = 20_000
) -> list[SemanticIds]:
    """The semantic IDs of every part that the schema has attributes of, in the order of `PARTS`.

    Args:
        schema: says which part shows which attribute group.
        labels: of the training split.
        combinations: `legal`: every combination of the values that a group can have, so that a description nobody fits
            in training has its ID too; `seen`: those of the training categories.
        limit: refuse a part with more legal combinations.

    Raises:
        ValueError: a part has too many.
    """
    found = []
    for part, where in schema.part_columns.items():
        columns = torch.from_numpy(where)
        pairs = zip(schema.groups, labels.patterns, strict=True)
        patterns = [pattern.cpu() for group, pattern in pairs if group.part == part]
        count = prod(len(pattern) for pattern in patterns)
        if combinations == "legal" and count > limit:
            raise ValueError(
                f"the part {part!r} of {schema.name} has {count} legal combinations of its attributes, more than "
                f"{limit}: set method.combinations to seen"
            )
        rows = _combine(patterns) if combinations == "legal" else labels.categories.cpu()[:, columns]
        found.append(SemanticIds(part, columns, torch.unique(rows, dim=0)))
    return found


def _combine(patterns: Sequence[Tensor]) -> Tensor:
    return torch.stack([torch.cat(rows) for rows in product(*patterns)])
