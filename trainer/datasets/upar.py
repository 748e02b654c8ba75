"""UPAR (Specker et al., WACV 2023): 40 binary attributes of Market-1501, PA-100K and PETA crops, as CSV.

`root` is the challenge's `data` folder: `annotations/` beside `Market1501/`, `PA100k/` and `PETA/`; `labels` is another
`annotations` folder. Protocol `challenge2027` is its public release: `train` and `val`, each with its own queries (the
test images are private, so evaluate on `val`). Several values of a group may be set, or none, so no group is a choice.
The persons of the three sources are not published as one numbering: all are unknown.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from descry.trainer.datasets.persons import DataConfig, DatasetError, PersonDataset, choose, find_images
from descry.trainer.datasets.statistics import contradictions
from descry.trainer.schema import AttributeGroup, AttributeSchema

NO_YES, LONG_SHORT = ("no", "yes"), ("long", "short")
COLORS = ("black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "white", "yellow", "other")
# In the order of the published columns, so that the vector is the published one.
GROUPS = (
    (AttributeGroup("age", ("young", "adult", "old"), "multi", "identity"), "Age-Young Age-Adult Age-Old"),
    (AttributeGroup("gender", ("male", "female"), "binary", "identity"), "Gender-Female"),
    (
        AttributeGroup("hair_length", ("short", "long", "bald"), "multi", "head"),
        "Hair-Length-Short Hair-Length-Long Hair-Length-Bald",
    ),
    (AttributeGroup("upper_length", LONG_SHORT, "binary", "upper"), "UpperBody-Length-Short"),
    (
        AttributeGroup("upper_color", COLORS, "multi", "upper"),
        " ".join(f"UpperBody-Color-{color.title()}" for color in COLORS),
    ),
    (AttributeGroup("lower_length", LONG_SHORT, "binary", "lower"), "LowerBody-Length-Short"),
    (
        AttributeGroup("lower_color", COLORS, "multi", "lower"),
        " ".join(f"LowerBody-Color-{color.title()}" for color in COLORS),
    ),
    (
        AttributeGroup("lower_type", ("trousers_or_shorts", "skirt_or_dress"), "multi", "lower"),
        "LowerBody-Type-Trousers&Shorts LowerBody-Type-Skirt&Dress",
    ),
    (AttributeGroup("backpack", NO_YES, "binary", "carrying"), "Accessory-Backpack"),
    (AttributeGroup("bag", NO_YES, "binary", "carrying"), "Accessory-Bag"),
    (AttributeGroup("glasses_normal", NO_YES, "binary", "head"), "Accessory-Glasses-Normal"),
    (AttributeGroup("glasses_sun", NO_YES, "binary", "head"), "Accessory-Glasses-Sun"),
    (AttributeGroup("hat", NO_YES, "binary", "head"), "Accessory-Hat"),
)
SCHEMA = AttributeSchema("upar", tuple(group for group, _ in GROUPS))
COLUMNS = tuple(column for _, columns in GROUPS for column in columns.split())
# Of these groups the labels mean one value an image.
ONE_VALUE = ("age", "hair_length", "lower_type")
PROTOCOL, SPLITS = "challenge2027", ("train", "val")
# Where copies of the release keep the labels of a split; the first that is there is read.
LABEL_FILES = ("{split}.csv", "task1/{split}/gt.csv", "task2/{split}/gt.csv")
PICKLES = (".pkl", ".pickle")
# A category is a query of the challenge.
PUBLISHED: dict[tuple[str, str], dict[str, int | str]] = {
    (PROTOCOL, "upar"): {
        "train images": 97669,
        "train categories": 7204,
        "val images": 33407,
        "val categories": 3462,
    }
}


@dataclass(frozen=True)
class Labels:
    """One CSV of labels.

    Attributes:
        path: the file.
        images: n paths below the root; empty in a file of queries.
        labels: uint8 [n, 40] in the order of `COLUMNS`; row r is row r + 2 of the file.
    """

    path: Path
    images: list[str]
    labels: np.ndarray


def load(config: DataConfig) -> PersonDataset:
    """Read the labels of `train` and `val` and those of their images that are under `root`.

    Raises:
        DatasetError: a missing label file, a pickle in its place, a wrong or repeated row, queries that do not belong
            to the labels, or no image at all.
    """
    root, folder = Path(config.root), Path(config.labels or Path(config.root, "annotations"))
    schema = choose({SCHEMA.name: SCHEMA}, config.schema, "data.schema")
    protocol = choose({PROTOCOL: PROTOCOL}, config.protocol, "data.protocol")
    tables = {split: read_labels(find_labels(root, folder, split)) for split in SPLITS}
    places: dict[str, str] = {}
    for table in tables.values():
        for number, image in enumerate(table.images, start=2):
            place = f"{table.path}, row {number}, {image}"
            if image in places:
                raise DatasetError(f"{place}: the image is listed already, in {places[image]}; download both again")
            places[image] = place
    for split, table in tables.items():
        check_queries(folder / "task2" / split, table)
    names = list(places)
    held, missing = find_images(root, names, folder)
    attributes = np.concatenate([table.labels for table in tables.values()])[held]
    splits = np.repeat(SPLITS, [len(table.images) for table in tables.values()])[held]
    partial = f"partial: {len(held)} of {len(names)} images; no result compares with the full set"
    return PersonDataset(
        name="upar",
        schema=schema,
        images=tuple(root / names[row] for row in held),
        attributes=attributes,
        persons=np.full(len(held), -1, np.int64),
        cameras=np.full(len(held), -1, np.int64),
        splits=splits,
        protocol=protocol,
        notes=(partial,) if missing else (),
        missing=missing,
        problems=contradictions(schema, attributes, [places[names[row]] for row in held], ONE_VALUE),
    )


def find_labels(root: Path, folder: Path, split: str) -> Path:
    """The label file of a split.

    Raises:
        DatasetError: there is none; where there is a pickle, it says that pickles are not read.
    """
    places = [folder / place.format(split=split) for place in LABEL_FILES]
    for place in places:
        if place.is_file():
            return place
    wanted = " or ".join(map(str, places))
    pickles = [folder] if folder.suffix in PICKLES else [path for path in root.glob("*") if path.suffix in PICKLES]
    if pickles:
        raise DatasetError(
            f"{pickles[0]} is a pickle, which may run any code and is never loaded; use the CSV files of the UPAR "
            f"challenge instead: data.labels is the folder `annotations` that holds {split}.csv"
        )
    raise DatasetError(f"{wanted} does not exist; data.root is the folder `data` of the UPAR challenge, which holds it")


def read_labels(path: Path, with_images: bool = True) -> Labels:
    """Read a CSV of labels; columns are found by name.

    The published headers begin with `#`, and some leave out `image` although the rows begin with it.

    Raises:
        DatasetError: a missing, repeated or unknown column, a row of another length, or a label other than 0 and 1.
    """
    header, *rows = read_rows(path)
    names = [name.strip() for name in ("".join(header[:1]).removeprefix("#"), *header[1:])]
    names = names[1:] if names[0] == "image" else names
    wrong = sorted(set(COLUMNS) ^ set(names)) or sorted({name for name in names if names.count(name) > 1})
    if wrong or not rows:
        found = f"{wrong[0]!r} is missing, repeated or not one of them" if wrong else "there is no row below them"
        raise DatasetError(f"{path}, row 1: the 40 attributes of UPAR are wanted, {COLUMNS[0]} ...: {found}")
    width = len(COLUMNS) + with_images
    for number, row in enumerate(rows, start=2):
        if len(row) != width:
            raise DatasetError(f"{path}, row {number}: {len(row)} cells, {width} are wanted; download it again")
    cells = np.array([row[with_images:] for row in rows])
    for row, column in np.argwhere((cells != "0") & (cells != "1"))[:1]:
        raise DatasetError(
            f"{path}, row {row + 2}: {names[column]} is {cells[row, column]!r}, not 0 or 1; download it again"
        )
    order = [names.index(name) for name in COLUMNS]
    return Labels(path, [row[0] for row in rows if with_images], (cells == "1")[:, order].astype(np.uint8))


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a CSV.

    Raises:
        DatasetError: it is no text, or empty.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a CSV file: {error}; download it again") from error
    if not rows:
        raise DatasetError(f"{path} is empty; download it again")
    return rows


def check_queries(folder: Path, table: Labels) -> None:
    """Check that each distinct label vector is one query of `queries.csv`, and the query of each image in `ids.csv`.

    Args:
        folder: where the two lie; a copy that lacks them passes.
        table: the labels of the split.

    Raises:
        DatasetError: it is not so.
    """
    path = folder / "queries.csv"
    if not path.is_file():
        return
    number_of: dict[bytes, int] = {}
    for number, vector in enumerate(read_labels(path, with_images=False).labels):
        first = number_of.setdefault(vector.tobytes(), number)
        if first != number:
            raise DatasetError(f"{path}, row {number + 2}: the same attributes as row {first + 2}; download it again")
    vectors = [vector.tobytes() for vector in table.labels]
    for number, (image, vector) in enumerate(zip(table.images, vectors, strict=True), start=2):
        if vector not in number_of:
            raise DatasetError(
                f"{table.path}, row {number}, {image}: its attributes are no query of {path}; download both again"
            )
    asked = set(vectors)
    unused = sorted(number for vector, number in number_of.items() if vector not in asked)
    if unused:
        raise DatasetError(f"{path}, row {unused[0] + 2}: no image has these attributes; download it again")
    if (folder / "ids.csv").is_file():
        expected = dict(zip(table.images, (number_of[vector] for vector in vectors), strict=True))
        _check_ids(folder / "ids.csv", expected)


def _check_ids(path: Path, expected: dict[str, int]) -> None:
    remaining = dict(expected)
    for number, row in enumerate(read_rows(path), start=1):
        query = remaining.pop(row[0], None) if len(row) == 2 else None
        if query is None:
            raise DatasetError(
                f"{path}, row {number}: {','.join(row)!r} is not another image of the split and its query; "
                "download it again"
            )
        if row[1] != str(query):
            raise DatasetError(
                f"{path}, row {number}, {row[0]}: query {row[1]!r}, but its attributes are query {query}; "
                "download it again"
            )
    if remaining:
        raise DatasetError(f"{path}: {next(iter(remaining))} is missing; download it again")
