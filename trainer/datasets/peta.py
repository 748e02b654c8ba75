"""PETA (Deng et al., ACM MM 2014): 19 000 crops with 105 binary attributes each, from the original `PETA.mat`.

Schema `peta` has all 105 attributes in ASMR's 17 groups; `peta35` the 35 that attribute recognition is measured on.

Protocols (`data.protocol`):
    sal: categories with two images or more, 200 of them for testing, drawn by NumPy's seed 1 (SAL).
    mtt: the same draw with seed 2, which has the image counts of the Multi-task Transformer's paper.
    random1 ... random5: the five random splits of the file, 9 500 / 1 900 / 7 600 images.
    persons: person-disjoint, 60 % / 10 % / 30 % of the persons, drawn with `data.split_seed`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from descry.trainer.datasets.matfile import read_mat, read_struct, texts
from descry.trainer.datasets.persons import (
    SPLITS,
    DataConfig,
    DatasetError,
    PersonDataset,
    choose,
    find_annotation,
    find_images,
)
from descry.trainer.datasets.peta_attributes import ONE_VALUE, SCHEMAS
from descry.trainer.datasets.splits import split_persons
from descry.trainer.datasets.statistics import contradictions

TEST_CATEGORIES = 200
SEEDS = {"sal": 1, "mtt": 2}
RANDOM = tuple(f"random{number}" for number in range(1, 6))
PROTOCOLS = (*SEEDS, *RANDOM, "persons")
COLUMNS_BEFORE_LABELS, PERSON_COLUMN = 4, 1
# By protocol and schema; a split's digest is the SHA-256 of its image numbers, sorted, one a line.
PUBLISHED: dict[tuple[str, str], dict[str, int | str]] = {
    ("sal", "peta"): {
        "train images": 11886,
        "train categories": 1890,
        "test images": 1435,
        "test categories": 200,
        "test categories unseen in training": 200,
        "test digest": "b841e716ce26886bea5f99e84882e9609b70a1031adae6cb06f77be58ccf2e49",
    },
    ("mtt", "peta35"): {
        "train images": 12140,
        "test images": 1181,
        "test categories": 184,
        "test categories unseen in training": 110,
    },
    **{
        (name, schema): {"train images": 9500, "val images": 1900, "test images": 7600}
        for name in RANDOM
        for schema in SCHEMAS
    },
}


@dataclass(frozen=True)
class Annotation:
    """What `PETA.mat` says of n images, in the order of their numbers.

    Attributes:
        names: of the image files, `00001.png` ...
        attributes: the file's names of its 105 attributes.
        labels: uint8 [n, 105], in that order.
        persons: int64 [n].
        random: str [5, n], the split of each image in the five random splits.
    """

    names: tuple[str, ...]
    attributes: tuple[str, ...]
    labels: np.ndarray
    persons: np.ndarray
    random: np.ndarray


def load(config: DataConfig) -> PersonDataset:
    """Read the images under `root/images` or `root` that the protocol uses.

    Raises:
        DatasetError: a missing or damaged file, an unknown schema or protocol, or no image at all.
    """
    root = Path(config.root)
    schema, elements = choose(SCHEMAS, config.schema, "data.schema")
    protocol = choose(dict(zip(PROTOCOLS, PROTOCOLS, strict=True)), config.protocol, "data.protocol")
    folder = root / "images" if (root / "images").is_dir() else root
    path = find_annotation(root, "PETA", config.labels)
    annotation = read_annotation(path)
    columns = [annotation.attributes.index(element) for element in elements]
    splits = split(annotation, protocol, config.split_seed)
    used = np.flatnonzero(splits != "")
    found, missing = find_images(folder, [annotation.names[row] for row in used], path)
    held = used[found]
    return PersonDataset(
        name="peta",
        schema=schema,
        images=tuple(folder / annotation.names[row] for row in held),
        attributes=annotation.labels[held][:, columns],
        persons=annotation.persons[held],
        cameras=np.full(len(held), -1, np.int64),
        splits=splits[held],
        protocol=protocol,
        notes=_notes(splits, len(missing)),
        missing=missing,
        problems=_problems(annotation, held),
    )


def _problems(annotation: Annotation, rows: np.ndarray) -> tuple[str, ...]:
    """Contradictions among all 105 attributes: of the 35, one value of a group may be left out."""
    schema, elements = SCHEMAS["peta"]
    labels = annotation.labels[rows][:, [annotation.attributes.index(element) for element in elements]]
    return contradictions(schema, labels, [annotation.names[row] for row in rows], ONE_VALUE)


def _notes(splits: np.ndarray, missing: int) -> tuple[str, ...]:
    unused = int((splits == "").sum())
    notes = []
    if unused:
        notes.append(f"{unused} of {len(splits)} images are in no split: nobody else has their category")
    if missing:
        notes.append(f"partial: {missing} images of the protocol are missing, so no result is comparable")
    return tuple(notes)


def read_annotation(path: Path) -> Annotation:
    """Read `PETA.mat`.

    Raises:
        DatasetError: the file is missing or damaged, lacks a field or an attribute, or holds a label other than 0 and
            1 or a split that is no partition.
    """
    content = read_mat(path, ["peta"])
    fields = read_struct(
        path, "peta", content["peta"], ["data", "attribute", "selected_attribute", "partion_attribute"]
    )
    attributes, data = tuple(texts(fields["attribute"])), fields["data"].astype(np.int64)
    absent = sorted(set(SCHEMAS["peta"][1]) - set(attributes))
    if absent or data.shape[1] != COLUMNS_BEFORE_LABELS + len(attributes):
        problem = f"attribute {absent[0]} is missing" if absent else f"data has {data.shape[1]} columns"
        raise DatasetError(f"{path}: {problem}; the published file has 105 attributes in 109 columns")
    labels = data[:, COLUMNS_BEFORE_LABELS:]
    numbers = np.arange(1, len(data) + 1)
    if (data[:, 0] != numbers).any():
        row = int(np.flatnonzero(data[:, 0] != numbers)[0])
        raise DatasetError(f"{path}: data row {row + 1} is of image {data[row, 0]}; images must be numbered from 1")
    if not np.isin(labels, (0, 1)).all():
        row, column = np.argwhere(~np.isin(labels, (0, 1)))[0]
        raise DatasetError(
            f"{path}: data row {row + 1} ({row + 1:05d}.png), {attributes[column]} is {labels[row, column]}, not 0 or 1"
        )
    names = tuple(f"{number:05d}.png" for number in numbers)
    random = np.stack(
        [_partition(path, number, part, len(data)) for number, part in enumerate(fields["partion_attribute"], 1)]
    )
    return Annotation(names, attributes, labels.astype(np.uint8), data[:, PERSON_COLUMN], random)


def _partition(path: Path, number: int, cell: np.ndarray, count: int) -> np.ndarray:
    """One random split, str [count], from its one-based image numbers."""
    name = f"partion_attribute[{number}]"
    parts = read_struct(path, name, cell, SPLITS)
    splits = np.full(count, "", dtype="<U5")
    for part in SPLITS:
        rows = parts[part].astype(np.int64)
        wrong = rows[(rows < 1) | (rows > count)]
        if len(wrong):
            raise DatasetError(f"{path}: {name}.{part} names image {wrong[0]}; images are numbered from 1 to {count}")
        numbers, times = np.unique(rows, return_counts=True)
        twice = numbers[(times > 1) | (splits[numbers - 1] != "")]
        if len(twice):
            raise DatasetError(f"{path}: {name}.{part} names image {twice[0]} a second time")
        splits[rows - 1] = part
    return splits


def split(annotation: Annotation, protocol: str, seed: int) -> np.ndarray:
    """The split of each image under a protocol: str [n], empty where it uses the image not at all."""
    if protocol in SEEDS:
        return category_split(annotation.labels, SEEDS[protocol])
    if protocol in RANDOM:
        return annotation.random[RANDOM.index(protocol)]
    return split_persons(annotation.persons, seed)


def category_split(labels: np.ndarray, seed: int) -> np.ndarray:
    """SAL's split: of the categories with two images or more, 200 at random test and the others train.

    Args:
        labels: uint8 [n, 105], whose rows are the categories, counted in the order of their first image.
        seed: of NumPy's legacy generator, as the released code draws it.

    Returns:
        str [n] of `train` and `test`; empty for an image whose category nobody else has.

    Raises:
        DatasetError: fewer categories than the test split takes.
    """
    _, first, category, sizes = np.unique(labels, axis=0, return_index=True, return_inverse=True, return_counts=True)
    category = category.ravel()
    shared = [one for one in np.argsort(first) if sizes[one] > 1]
    if len(shared) <= TEST_CATEGORIES:
        raise DatasetError(
            f"{len(shared)} categories have two images or more, but {TEST_CATEGORIES} are drawn for testing: take "
            f"another data.protocol ({', '.join((*RANDOM, 'persons'))})"
        )
    training = np.random.RandomState(seed).choice(len(shared), len(shared) - TEST_CATEGORIES, replace=False)
    part = np.full(len(sizes), "", dtype="<U5")
    part[shared] = "test"
    part[np.array(shared)[training]] = "train"
    return part[category]
