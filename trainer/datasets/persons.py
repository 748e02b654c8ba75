"""The dataset artifact: images, three-valued attributes, person, camera and split of every crop."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from descry.trainer.schema import UNKNOWN, AttributeSchema

SPLITS = ("train", "val", "test")
# Images of nobody that is labelled: part of a re-ID gallery, never of an attribute search.
DISTRACTOR = "distractor"

Choice = TypeVar("Choice")


class DatasetError(ValueError):
    """A dataset cannot be used; the message names the file, the row, the value and the next step."""


@dataclass(frozen=True)
class DataConfig:
    """Which images to read, and under which published protocol.

    Attributes:
        name: a key of `DATASETS`, e.g. `market1501`, `peta`, `folder`.
        root: folder of the dataset.
        labels: the label file; empty = where the dataset keeps it.
        schema: name of the attribute set, e.g. `market1501_onehot`; empty = the dataset's first.
        protocol: name of the split, e.g. `sal`; empty = the dataset's first.
        validation: share of the training split to hold out as `val` (whole persons or whole categories, as the test
            split is drawn); 0 = the published split as it is.
        unseen_sids: leave the training persons of so many semantic IDs of the test split out (Cerberus, Figure 7b).
        split_seed: seed of every split that this project draws.
        cache: folder of decoded pixels; empty = decode in every epoch.
        options: what one dataset alone needs, e.g. `persons` of the synthetic set.
    """

    name: str = "synthetic"
    root: str = "data/synthetic"
    labels: str = ""
    schema: str = ""
    protocol: str = ""
    validation: float = 0.0
    unseen_sids: int = 0
    split_seed: int = 0
    cache: str = ""
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
        splits: str [n], `train`, `val`, `test` or `distractor`.
        protocol: name of the published split that `splits` follows; empty = none has a name.
        queries: bool [n], whether the image is a query of the re-ID benchmark; by default none is.
        notes: what a user must know before comparing numbers.
        missing: published files that are not there; empty = complete.
        problems: labels that contradict themselves, each with its row.
    """

    name: str
    schema: AttributeSchema
    images: tuple[Path, ...]
    attributes: np.ndarray
    persons: np.ndarray
    cameras: np.ndarray
    splits: np.ndarray
    protocol: str = ""
    queries: np.ndarray = None  # type: ignore[assignment]
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        count = len(self.images)
        if self.queries is None:
            object.__setattr__(self, "queries", np.zeros(count, bool))
        if self.attributes.shape != (count, self.schema.size):
            raise DatasetError(
                f"{self.name}: {self.attributes.shape} labels for {count} images x {self.schema.size} attributes"
            )
        for label in ("persons", "cameras", "splits", "queries"):
            if len(getattr(self, label)) != count:
                raise DatasetError(f"{self.name}: {len(getattr(self, label))} {label} for {count} images")
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
        columns = {
            name: getattr(self, name)[rows] for name in ("attributes", "persons", "cameras", "splits", "queries")
        }
        return replace(self, images=tuple(self.images[row] for row in rows), **columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Image paths from their common folder on, without ending: the same wherever the dataset lies."""
        common = os.path.commonpath([image.parent for image in self.images]) if self.images else ""
        return tuple(os.path.splitext(os.path.relpath(image, common))[0] for image in self.images)

    def digests(self) -> dict[str, str]:
        """SHA-256 of each split (its image names, sorted, one a line) and of `labels` (name and all labels a line)."""
        names = np.array(self.names)
        lines = {
            split: sorted(names[self.splits == split])
            for split in (*SPLITS, DISTRACTOR)
            if (self.splits == split).any()
        }
        labels = zip(names, self.persons, self.cameras, self.attributes, strict=True)
        lines["labels"] = sorted(
            f"{name} {person} {camera} {row.tobytes().hex()}" for name, person, camera, row in labels
        )
        return {name: hashlib.sha256("\n".join(text).encode()).hexdigest() for name, text in lines.items()}


def choose(choices: Mapping[str, Choice], name: str, key: str) -> Choice:
    """The entry called `name`, or the first when it is empty.

    Raises:
        DatasetError: no such entry; the message names `key` and the valid ones.
    """
    if name and name not in choices:
        raise DatasetError(f"{key}: {name!r} is not one of {', '.join(choices)}")
    return choices[name or next(iter(choices))]


def find_annotation(root: Path, name: str, given: str) -> Path:
    """The annotation file: `given`, or `NAME.mat` in `root` or in `root/attribute`, where its authors put it."""
    if given:
        return Path(given)
    places = [root / f"{name}.mat", root / "attribute" / f"{name}.mat"]
    return next((place for place in places if place.exists()), places[0])


def find_images(folder: Path, names: Sequence[str], source: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which of `names` are files in `folder`: their rows int64 [m], and the paths of the others.

    Raises:
        DatasetError: none is; `source` is where the names come from.
    """
    present = np.array([(folder / name).is_file() for name in names])
    if not present.any():
        raise DatasetError(f"{folder}: no image of {source} is here; expected files such as {folder / names[0]}")
    return np.flatnonzero(present), tuple(str(folder / names[row]) for row in np.flatnonzero(~present))
