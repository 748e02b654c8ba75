"""Splits that this project draws where none is published; each is a function of the labels and a seed."""

from dataclasses import replace

import numpy as np

from descry.trainer.datasets.persons import DatasetError, PersonDataset
from descry.trainer.schema import UNKNOWN


def category_numbers(attributes: np.ndarray) -> np.ndarray:
    """Number of each row's category, the exact label vector: int64 [n] from 0, for uint8 [n, N]."""
    return np.unique(attributes, axis=0, return_inverse=True)[1].ravel()


def split_persons(persons: np.ndarray, seed: int) -> np.ndarray:
    """A person-disjoint split: 60 % of the persons train, 10 % val, 30 % test.

    Args:
        persons: int64 [n].
        seed: of the draw.

    Returns:
        str [n] of `train`, `val` and `test`.
    """
    everyone, owner = np.unique(persons, return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(everyone)) / len(everyone)
    part = np.where(place < 0.6, "train", np.where(place < 0.7, "val", "test"))
    return part[owner.ravel()]


def hold_out(dataset: PersonDataset, share: float, seed: int) -> PersonDataset:
    """Move a share of the training images to `val`, as the test split was drawn.

    Whole categories where no test category is seen in training (PETA in SAL's split); otherwise whole persons; whole
    categories where persons are not known.

    Raises:
        DatasetError: the share is not between 0 and 1, or there is a `val` split already.
    """
    if not 0 < share < 1:
        raise DatasetError(f"data.validation: {share} is not a share between 0 and 1")
    if (dataset.splits == "val").any():
        raise DatasetError(f"{dataset.name} has a val split already: set data.validation to 0")
    training = dataset.splits == "train"
    categories = category_numbers(dataset.attributes)
    seen = np.isin(categories[dataset.splits == "test"], categories[training]).any()
    by_person = seen and (dataset.persons[training] >= 0).all()
    unit = dataset.persons if by_person else categories
    units = np.random.default_rng(seed).permutation(np.unique(unit[training]))
    held = units[: max(1, round(share * len(units)))]
    splits = np.where(training & np.isin(unit, held), "val", dataset.splits)
    kind = "persons" if by_person else "categories"
    note = f"{len(held)} of {len(units)} training {kind} are held out as val (data.validation {share}, seed {seed})"
    return replace(dataset, splits=splits, notes=(*dataset.notes, note))


# A semantic ID of more training persons is never left out: what is missed then is the data, not the ID.
RARE = 0.05


def exclude_semantic_ids(dataset: PersonDataset, count: int, seed: int) -> PersonDataset:
    """Leave the persons of `count` semantic IDs out of training, so that the test split has IDs unseen in training.

    Cerberus, Figure 7(b). A semantic ID is a combination of the attributes of one body part. They are drawn, each with
    the same probability, from those that the test split shares with training, there with 5 % of the persons at most.

    Raises:
        DatasetError: there are not so many.
    """
    training = dataset.splits == "train"
    shown = _semantic_ids(dataset)
    shared = np.intersect1d(shown[dataset.splits == "test"], shown[training])
    persons = len(np.unique(dataset.persons[training]))
    rare = [_persons_of(number, shown, dataset, training) <= RARE * persons for number in shared]
    candidates = shared[np.array(rare) & (shared >= 0)]
    if len(candidates) < count:
        raise DatasetError(
            f"data.unseen_sids: {count} semantic IDs cannot be left out: of those that test shares with training, "
            f"{len(candidates)} are of at most {RARE:.0%} of its persons"
        )
    drawn = np.random.default_rng(seed).permutation(candidates)[:count]
    excluded = training & np.isin(shown, drawn).any(axis=1)
    left = len(np.unique(dataset.persons[training & ~excluded]))
    note = (
        f"{count} semantic IDs of the test split are left out of training (data.unseen_sids, seed {seed}): "
        f"{excluded.sum()} images, {left} of {persons} persons left"
    )
    return replace(dataset.rows(np.flatnonzero(~excluded)), notes=(*dataset.notes, note))


def _persons_of(number: int, shown: np.ndarray, dataset: PersonDataset, training: np.ndarray) -> int:
    return len(np.unique(dataset.persons[training & (shown == number).any(axis=1)]))


def category_aware_split(attributes: np.ndarray, seed: int) -> np.ndarray:
    """Split rows 72 % train, 8 % val, 20 % test so that half of each held-out part has categories unseen in training.

    Whole categories, in random order, are given to test and then to val until each has half its rows; the other half
    is drawn from the remaining rows, category by category, always leaving one row of the category to training.

    Args:
        attributes: uint8 [n, N]; rows are grouped by their exact pattern.
        seed: of the draw.

    Returns:
        str [n] of `train`, `val` and `test`.
    """
    generator = np.random.default_rng(seed)
    categories = category_numbers(attributes)
    count = len(categories)
    splits = np.full(count, "train", dtype="<U5")
    order = generator.permutation(categories.max() + 1)
    sizes = {"test": round(0.2 * count), "val": round(0.08 * count)}
    for split, size in sizes.items():
        for category in order:
            rows = np.flatnonzero((categories == category) & (splits == "train"))
            already = (splits == split).sum()
            if len(rows) == (categories == category).sum() and already + len(rows) <= size // 2:
                splits[rows] = split
    for split, size in sizes.items():
        for row in generator.permutation(count):
            if (splits == split).sum() == size:
                break
            same = (categories == categories[row]) & (splits == "train")
            if splits[row] == "train" and same.sum() > 1:
                splits[row] = split
    return splits


def _semantic_ids(dataset: PersonDataset) -> np.ndarray:
    """Number of each row's semantic ID in each part, distinct over all parts: int64 [n, parts]; -1 where unknown."""
    numbers, next_number = [], 0
    for columns in dataset.schema.part_columns.values():
        shown = dataset.attributes[:, columns]
        own = category_numbers(shown)
        numbers.append(np.where((shown == UNKNOWN).any(axis=1), -1, own + next_number))
        next_number += own.max() + 1
    return np.stack(numbers, axis=1)
