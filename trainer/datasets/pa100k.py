"""PA-100K (Liu et al., HydraPlus-Net, ICCV 2017): 26 attributes in 15 groups, from the original `annotation.mat`.

The order of the groups below is the order of the 26 columns. A folder that holds only some of the 100 000 images is
used as far as it
goes; the official split is kept when images of the official validation and test sets are there, otherwise a
category-aware one is drawn.
"""

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from descry.trainer.datasets.persons import DataConfig, DatasetError, PersonDataset
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
SPLIT_NAMES = ("train", "val", "test")


def load(config: DataConfig) -> PersonDataset:
    """Read `labels` (default `root/annotation.mat`) and the images under `root/images` or `root`.

    Raises:
        DatasetError: a missing file or field, a label outside 0 and 1, or no image of the annotation in the folder.
    """
    root = Path(config.root)
    folder = root / "images" if (root / "images").is_dir() else root
    annotation = Path(config.labels) if config.labels else root / "annotation.mat"
    names, attributes, official = read_annotation(annotation)
    present = {path.name for path in folder.glob("*.jpg")}
    held = np.flatnonzero([name in present for name in names])
    if not len(held):
        raise DatasetError(f"{folder}: no image of {annotation} is here; expected files such as {names[0]}")
    complete = set(official[held]) == set(SPLIT_NAMES)
    splits = official[held] if complete else category_aware_split(attributes[held], config.split_seed)
    unknown = np.full(len(held), -1, np.int64)
    images = tuple(folder / names[row] for row in held)
    return PersonDataset("pa100k", SCHEMA, images, attributes[held], unknown, unknown, splits)


def read_annotation(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """File names, labels uint8 [n, 26] and official split of all images of `annotation.mat`.

    Raises:
        DatasetError: the file is missing, is no .mat file, lacks a field, or holds another number of columns.
    """
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; give PA-100K's annotation.mat as data.labels")
    try:
        content = loadmat(str(path))
    except Exception as error:  # scipy raises TypeError, ValueError, OSError or zlib.error by the kind of damage
        raise DatasetError(f"{path} is not a readable .mat file ({error}); download annotation.mat again") from error
    names: list[str] = []
    labels, splits = [], []
    for split in SPLIT_NAMES:
        fields = (f"{split}_images_name", f"{split}_label")
        missing = [field for field in fields if field not in content]
        if missing:
            raise DatasetError(f"{path}: field {missing[0]!r} is missing; it holds {sorted(content)}")
        split_names = [str(cell.item()) for cell in content[fields[0]].ravel()]
        matrix = content[fields[1]]
        if matrix.shape != (len(split_names), SCHEMA.size):
            raise DatasetError(f"{path}: {fields[1]} is {matrix.shape}, wanted ({len(split_names)}, {SCHEMA.size})")
        if matrix.max(initial=0) > 1:
            row, column = np.argwhere(matrix > 1)[0]
            raise DatasetError(
                f"{path}: {fields[1]} row {row} ({split_names[row]}) column {column} is {matrix[row, column]}"
            )
        names += split_names
        labels.append(matrix.astype(np.uint8))
        splits += [split] * len(split_names)
    return names, np.concatenate(labels), np.array(splits)


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
    categories = np.unique(attributes, axis=0, return_inverse=True)[1].ravel()
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
