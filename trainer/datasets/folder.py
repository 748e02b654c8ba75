"""A folder of crops plus one CSV: attribute names as headers, value names as cells, an empty cell is unknown.

Reserved columns: `image` (path inside the folder), `person`, `camera` (whole numbers), `time`, `split`. Every other
column is an
attribute group of `schema.json`; without that file a column whose cells are all 0/1 or no/yes becomes a binary group
and any other a choice, both of the part `identity`.
"""

import csv
from pathlib import Path

import numpy as np

from descry.trainer.datasets.persons import SPLITS, DataConfig, DatasetError, PersonDataset
from descry.trainer.schema import NONE, AttributeGroup, AttributeSchema, SchemaError

RESERVED = ("image", "person", "camera", "time", "split")
SEPARATOR = "+"


def load(config: DataConfig) -> PersonDataset:
    """Read `root/labels.csv` (or `labels`), `root/schema.json` if present, and the image paths.

    Raises:
        DatasetError: a missing file, column or image, a repeated image, or a value that the schema does not have.
    """
    root = Path(config.root)
    table = Path(config.labels) if config.labels else root / "labels.csv"
    rows = read_table(table)
    schema_file = root / "schema.json"
    groups = [column for column in rows[0] if column not in RESERVED]
    schema = AttributeSchema.load(schema_file) if schema_file.is_file() else infer_schema(root.name, groups, rows)
    unlabelled = sorted(set(groups) - set(schema.slices))
    if unlabelled:
        raise DatasetError(
            f"{table}: column {unlabelled[0]!r} is not in {schema_file}; valid: {', '.join(schema.slices)}"
        )
    return PersonDataset(
        name=root.name,
        schema=schema,
        images=_images(table, root, rows),
        attributes=np.stack([_encode(table, number, row, schema) for number, row in enumerate(rows, start=2)]),
        persons=_numbers(table, rows, "person"),
        cameras=_numbers(table, rows, "camera"),
        splits=_splits(table, rows),
    )


def read_table(table: Path) -> list[dict[str, str]]:
    """Rows of a CSV as dictionaries of stripped text.

    Raises:
        DatasetError: the file is missing or empty, has no `image` column, or a row is longer or shorter than the
            header.
    """
    if not table.is_file():
        raise DatasetError(f"{table} does not exist; it needs a header with `image` and one column an attribute")
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or "image" not in rows[0]:
        raise DatasetError(f"{table}: needs an `image` column and at least one row")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise DatasetError(f"{table}, row {number}: {len(rows[0])} cells wanted, one for each column of the header")
    return [{key.strip(): value.strip() for key, value in row.items()} for row in rows]


def infer_schema(name: str, groups: list[str], rows: list[dict[str, str]]) -> AttributeSchema:
    """Guess a schema from the cells: see the module's text. `+` inside a cell makes the group a multi."""
    if not groups:
        raise DatasetError(f"{name}: no attribute column beside {', '.join(RESERVED)}")
    return AttributeSchema(name, tuple(_infer_group(group, {row[group] for row in rows} - {""}) for group in groups))


def _infer_group(name: str, cells: set[str]) -> AttributeGroup:
    for negative, positive in (("0", "1"), ("no", "yes")):
        if cells and cells <= {negative, positive}:
            return AttributeGroup(name, (negative, positive), "binary", "identity")
    values = tuple(sorted({value for cell in cells for value in cell.split(SEPARATOR)} - {NONE}))
    if not values:
        raise DatasetError(f"column {name!r} has no value in any row: fill it or remove it")
    kind = "multi" if any(SEPARATOR in cell for cell in cells) else "choice"
    return AttributeGroup(name, values, kind, "identity")


def _encode(table: Path, number: int, row: dict[str, str], schema: AttributeSchema) -> np.ndarray:
    cells = {column: cell.split(SEPARATOR) for column, cell in row.items() if column not in RESERVED and cell}
    try:
        return schema.encode(cells)
    except SchemaError as error:
        raise DatasetError(f"{table}, row {number}, {row['image']}: {error}") from error


def _images(table: Path, root: Path, rows: list[dict[str, str]]) -> tuple[Path, ...]:
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        if row["image"] in seen:
            raise DatasetError(f"{table}, row {number}: {row['image']} was listed in row {seen[row['image']]} already")
        seen[row["image"]] = number
        if not (root / row["image"]).is_file():
            raise DatasetError(
                f"{table}, row {number}: {root / row['image']} does not exist; paths are relative to {root}"
            )
    return tuple(root / row["image"] for row in rows)


def _numbers(table: Path, rows: list[dict[str, str]], column: str) -> np.ndarray:
    numbers = np.full(len(rows), -1, np.int64)
    for position, row in enumerate(rows):
        if cell := row.get(column, ""):
            if not cell.isdigit():
                raise DatasetError(
                    f"{table}, row {position + 2}: {column} {cell!r} is not a whole number; empty = unknown"
                )
            numbers[position] = int(cell)
    return numbers


def _splits(table: Path, rows: list[dict[str, str]]) -> np.ndarray:
    splits = [row.get("split") or "train" for row in rows]
    for number, split in enumerate(splits, start=2):
        if split not in SPLITS:
            raise DatasetError(f"{table}, row {number}: split {split!r} is not one of {', '.join(SPLITS)}")
    return np.array(splits)
