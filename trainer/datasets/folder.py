"""A folder of crops plus one table: attribute names as headers, value names as cells, an empty cell is unknown.

The table is `labels.csv` or `labels.parquet` (null is an empty cell, a truth value no/yes, a list several values).
Reserved columns: `image` (path inside the folder), `person`, `camera` (whole numbers), `split`, and `time` (ISO 8601)
and `track`, which only a gallery reads. Every other column is an attribute group of `schema.json`; without that file
the schema is guessed as `infer.py` says, body parts from the column names.
"""

from datetime import datetime
from pathlib import Path

import numpy as np

from descry.trainer.datasets.infer import infer_schema
from descry.trainer.datasets.persons import SPLITS, DataConfig, DatasetError, PersonDataset
from descry.trainer.datasets.table import RESERVED, SEPARATOR, LabelTable, find_table, read_table
from descry.trainer.schema import AttributeSchema, SchemaError

MOST_DIGITS = 18  # of an int64
GUESSED = (
    "there is no schema.json: kinds and body parts are guessed from the labels; "
    "`python -m descry.trainer.datasets infer ROOT` writes them for you to correct"
)


def load(config: DataConfig) -> PersonDataset:
    """Read the table in `root` (or `labels`), `root/schema.json` if present, and the image paths.

    Raises:
        DatasetError: a missing file, column or image, a repeated image, or a value that the schema does not have.
    """
    root = Path(config.root)
    table = read_table(find_table(root, config.labels))
    name, schema_file = root.resolve().name, root / "schema.json"
    guessed = not schema_file.is_file()
    schema = infer_schema(name, table) if guessed else AttributeSchema.load(schema_file)
    unlabelled = sorted(set(table.groups) - set(schema.slices))
    if unlabelled:
        raise DatasetError(
            f"{table.path}: column {unlabelled[0]!r} is not in {schema_file}; valid: {', '.join(schema.slices)}"
        )
    _check_times(table)
    return PersonDataset(
        name=name,
        schema=schema,
        images=_images(table, root),
        attributes=np.stack([_encode(table, index, schema) for index in range(len(table.rows))]),
        persons=_numbers(table, "person"),
        cameras=_numbers(table, "camera"),
        splits=_splits(table),
        notes=(GUESSED,) if guessed else (),
    )


def _encode(table: LabelTable, index: int, schema: AttributeSchema) -> np.ndarray:
    row = table.rows[index]
    cells = {column: cell.split(SEPARATOR) for column, cell in row.items() if column not in RESERVED and cell}
    try:
        return schema.encode(cells)
    except SchemaError as error:
        raise DatasetError(f"{table.place(index)}, {row['image']}: {error}") from error


def _images(table: LabelTable, root: Path) -> tuple[Path, ...]:
    seen: dict[str, int] = {}
    for index, row in enumerate(table.rows):
        image = row["image"]
        if image in seen:
            raise DatasetError(f"{table.place(index)}: {image} was listed in row {table.numbers[seen[image]]} already")
        seen[image] = index
        if not (root / image).is_file():
            raise DatasetError(f"{table.place(index)}: {root / image} does not exist; paths are relative to {root}")
    return tuple(root / image for image in seen)


def _numbers(table: LabelTable, column: str) -> np.ndarray:
    numbers = np.full(len(table.rows), -1, np.int64)
    for index, row in enumerate(table.rows):
        if cell := row.get(column, ""):
            if not (cell.isascii() and cell.isdigit() and len(cell) <= MOST_DIGITS):
                raise DatasetError(
                    f"{table.place(index)}: {column} {cell!r} is not a whole number of at most {MOST_DIGITS} digits; "
                    "empty = unknown"
                )
            numbers[index] = int(cell)
    return numbers


def _splits(table: LabelTable) -> np.ndarray:
    splits = [row.get("split") or "train" for row in table.rows]
    for index, split in enumerate(splits):
        if split not in SPLITS:
            raise DatasetError(f"{table.place(index)}: split {split!r} is not one of {', '.join(SPLITS)}")
    return np.array(splits)


def _check_times(table: LabelTable) -> None:
    """Refuse a time that a gallery would refuse later, for every image alone."""
    for index, row in enumerate(table.rows):
        try:
            datetime.fromisoformat((row.get("time") or "2024-05-01").replace("Z", "+00:00"))
        except ValueError as error:
            raise DatasetError(
                f"{table.place(index)}: time {row['time']!r} is not ISO 8601, such as 2024-05-01T12:00:00"
            ) from error
