"""PA-100K (Liu et al., HydraPlus-Net, ICCV 2017): 26 attributes in 15 groups, from the original `annotation.mat`.

The order of the groups below is the order of the 26 columns.

Protocols (`data.protocol`):
    official: 80 000 / 10 000 / 10 000 images.
    trainval: the official val images train as well, 90 000 / 10 000.
    drawn: 72 % / 8 % / 20 % of the images that are there, half of val and test with categories unseen in training,
        drawn with `data.split_seed`.
Without one it is `official` where images of all three official splits are there, and `drawn` for a smaller part.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from descry.trainer.datasets.matfile import read_mat, texts
from descry.trainer.datasets.persons import (
    SPLITS,
    DataConfig,
    DatasetError,
    PersonDataset,
    choose,
    find_annotation,
    find_images,
)
from descry.trainer.datasets.splits import category_aware_split
from descry.trainer.datasets.statistics import contradictions
from descry.trainer.schema import AttributeGroup, AttributeSchema

NO_YES = ("no", "yes")
SCHEMA = AttributeSchema(
    "pa100k",
    (
        AttributeGroup("gender", ("male", "female"), "binary", "identity"),
        AttributeGroup("age", ("over_60", "18_to_60", "under_18"), "choice", "identity"),
        AttributeGroup("view", ("front", "side", "back"), "choice", "identity"),
        AttributeGroup("hat", NO_YES, "binary", "head"),
        AttributeGroup("glasses", NO_YES, "binary", "head"),
        AttributeGroup("handbag", NO_YES, "binary", "carrying"),
        AttributeGroup("shoulder_bag", NO_YES, "binary", "carrying"),
        AttributeGroup("backpack", NO_YES, "binary", "carrying"),
        AttributeGroup("holding", NO_YES, "binary", "carrying"),
        AttributeGroup("sleeves", ("short", "long"), "choice", "upper"),
        AttributeGroup("upper_pattern", ("stripes", "logo", "plaid", "splice"), "choice", "upper"),
        AttributeGroup("lower_pattern", ("stripes", "pattern"), "choice", "lower"),
        AttributeGroup("long_coat", NO_YES, "binary", "upper"),
        AttributeGroup("lower_kind", ("trousers", "shorts", "skirt"), "choice", "lower"),
        AttributeGroup("boots", NO_YES, "binary", "lower"),
    ),
)
PROTOCOLS = {name: name for name in ("official", "trainval", "drawn")}
# Of these groups the labels mean one value an image.
ONE_VALUE = ("age", "view", "sleeves")
PUBLISHED: dict[tuple[str, str], dict[str, int | str]] = {
    ("official", "pa100k"): {
        "train images": 80000,
        "val images": 10000,
        "test images": 10000,
        "train categories": 2020,
        "test categories": 849,
    },
    ("trainval", "pa100k"): {"train images": 90000, "test images": 10000, "test categories": 849},
}


def load(config: DataConfig) -> PersonDataset:
    """Read `labels` (default `root/annotation.mat`) and those images that are under `root/images` or `root`.

    Raises:
        DatasetError: a missing file or field, a label outside 0 and 1, or no image of the annotation in the folder.
    """
    root = Path(config.root)
    folder = root / "images" if (root / "images").is_dir() else root
    path = find_annotation(root, "annotation", config.labels)
    names, attributes, official = read_annotation(path)
    held, missing = find_images(folder, names, path)
    part = "official" if set(official[held]) == set(SPLITS) else "drawn"
    protocol = choose(PROTOCOLS, config.protocol or part, "data.protocol")
    splits = {
        "official": lambda: official[held],
        "trainval": lambda: np.where(official[held] == "val", "train", official[held]),
        "drawn": lambda: category_aware_split(attributes[held], config.split_seed),
    }[protocol]()
    partial = f"partial: {len(held)} of {len(names)} images, split {protocol}; no result compares with the full set"
    held_names = [names[row] for row in held]
    return PersonDataset(
        name="pa100k",
        schema=SCHEMA,
        images=tuple(folder / name for name in held_names),
        attributes=attributes[held],
        persons=np.full(len(held), -1, np.int64),
        cameras=np.full(len(held), -1, np.int64),
        splits=splits,
        protocol=protocol,
        notes=(partial,) if missing else (),
        missing=missing,
        problems=contradictions(SCHEMA, attributes[held], held_names, ONE_VALUE),
    )


def read_annotation(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """File names, labels uint8 [n, 26] and official split of all images of `annotation.mat`.

    Raises:
        DatasetError: the file is missing, is no .mat file, lacks a field, names an image twice, or its labels are not
            0 and 1 in 26 columns and one row a name.
    """
    content = read_mat(path, [f"{split}_{kind}" for split in SPLITS for kind in ("images_name", "label")])
    names: list[str] = []
    labels, splits = [], []
    for split in SPLITS:
        split_names, matrix = texts(content[f"{split}_images_name"]), content[f"{split}_label"]
        if matrix.shape != (len(split_names), SCHEMA.size):
            raise DatasetError(f"{path}: {split}_label is {matrix.shape}, wanted ({len(split_names)}, {SCHEMA.size})")
        if not np.isin(matrix, (0, 1)).all():
            row, column = np.argwhere(~np.isin(matrix, (0, 1)))[0]
            raise DatasetError(
                f"{path}: {split}_label row {row} ({split_names[row]}) column {column} is {matrix[row, column]}"
            )
        names += split_names
        labels.append(matrix.astype(np.uint8))
        splits += [split] * len(split_names)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DatasetError(
            f"{path}: {repeated[0]} is listed {names.count(repeated[0])} times; one row an image is meant"
        )
    return names, np.concatenate(labels), np.array(splits)
