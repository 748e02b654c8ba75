"""The dataset artifact: images, three-valued attributes, person, camera and split of every crop."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from descry.trainer.schema import UNKNOWN, AttributeSchema

SPLITS = ("train", "val", "test")


class DatasetError(ValueError):
    """A dataset cannot be used; the message names the file, the row, the value and the next step."""


@dataclass(frozen=True)
class DataConfig:
    """Which images to read, and at which size.

    Attributes:
        name: `pa100k`, `folder` or `synthetic`.
        root: folder of the dataset.
        labels: the label file; empty = where the dataset keeps it.
        split_seed: seed of the splits that this project draws (PA-100K's partial folder).
        options: what one dataset alone needs, e.g. `persons` of the synthetic set.
    """

    name: str = "synthetic"
    root: str = "data/synthetic"
    labels: str = ""
    split_seed: int = 0
    options: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PersonDataset:
    """Crops and their labels, row by row.

    Attributes:
        name: of the dataset.
        schema: meaning of the attribute columns.
        images: n paths.
        attributes: uint8 [n, N] of 0, 1 and `UNKNOWN`.
        persons: int64 [n], -1 where unknown.
        cameras: int64 [n], -1 where unknown.
        splits: str [n], `train`, `val` or `test`.
    """

    name: str
    schema: AttributeSchema
    images: tuple[Path, ...]
    attributes: np.ndarray
    persons: np.ndarray
    cameras: np.ndarray
    splits: np.ndarray

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        count = len(self.images)
        if self.attributes.shape != (count, self.schema.size):
            raise DatasetError(
                f"{self.name}: {self.attributes.shape} labels for {count} images x {self.schema.size} attributes"
            )
        for label, column in (("persons", self.persons), ("cameras", self.cameras), ("splits", self.splits)):
            if len(column) != count:
                raise DatasetError(f"{self.name}: {len(column)} {label} for {count} images")
        if not np.isin(self.attributes, (0, 1, UNKNOWN)).all():
            raise DatasetError(f"{self.name}: labels other than 0, 1 and unknown ({UNKNOWN})")

    def __len__(self) -> int:
        """Number of crops."""
        return len(self.images)

    def subset(self, split: str) -> "PersonDataset":
        """The crops of one split, in order; empty when the split has none."""
        return self.rows(np.flatnonzero(self.splits == split))

    def rows(self, rows: np.ndarray) -> "PersonDataset":
        """The crops at `rows` (int [m]), in that order."""
        return PersonDataset(
            name=self.name,
            schema=self.schema,
            images=tuple(self.images[row] for row in rows),
            attributes=self.attributes[rows],
            persons=self.persons[rows],
            cameras=self.cameras[rows],
            splits=self.splits[rows],
        )
