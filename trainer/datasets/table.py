"""A table of labels, CSV or Parquet, as rows of text: the two differ in nothing after this module."""

import csv
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from descry.trainer.datasets.persons import DatasetError
from descry.trainer.schema import NONE

RESERVED = ("image", "person", "camera", "time", "track", "split")
SEPARATOR = "+"
FILE_NAMES = ("labels.csv", "labels.parquet")

Row = dict[str, str]


@dataclass(frozen=True)
class LabelTable:
    """Labels as text: an empty cell is unknown, `+` separates several values.

    Attributes:
        path: the file.
        rows: one an image, with the same columns.
        numbers: of the rows in the file, from 1; the header of a CSV is row 1.
    """

    path: Path
    rows: list[Row]
    numbers: list[int]

    @property
    def groups(self) -> list[str]:
        """The columns that are attributes."""
        return [column for column in self.rows[0] if column not in RESERVED]

    def place(self, index: int) -> str:
        """File and row of `rows[index]`, for errors."""
        return f"{self.path}, row {self.numbers[index]}"


def find_table(root: Path, given: str) -> Path:
    """The label file: `given`, or the one of `FILE_NAMES` in `root`.

    Raises:
        DatasetError: there is none, or both are there.
    """
    if given:
        path = Path(given)
        if not path.is_file():
            raise DatasetError(f"{path} does not exist; it is a CSV or Parquet file with `image` and attribute columns")
        return path
    found = [root / name for name in FILE_NAMES if (root / name).is_file()]
    if len(found) > 1:
        raise DatasetError(f"{found[0]} and {found[1]} are both there: remove one, or name one as data.labels")
    if not found:
        raise DatasetError(
            f"{root / FILE_NAMES[0]} does not exist, nor {FILE_NAMES[1]}; it needs `image` and one column an attribute"
        )
    return found[0]


def read_table(path: Path) -> LabelTable:
    """Read a CSV file, or a Parquet file (`.parquet`).

    Raises:
        DatasetError: the file is unreadable or has no row, no `image` column or a repeated one, or a cell is no label.
    """
    table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    if not table.rows or "image" not in table.rows[0]:
        raise DatasetError(f"{path}: needs an `image` column and at least one row")
    for index, row in enumerate(table.rows):
        for column in table.groups:
            if "" in (cell := row[column]).split(SEPARATOR) and cell:
                raise DatasetError(
                    f"{table.place(index)}: {column} {cell!r} has an empty value; {SEPARATOR} stands between two values"
                )
    return table


def _read_csv(path: Path) -> LabelTable:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            records = [[cell.strip() for cell in record] for record in csv.reader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a CSV file in UTF-8: {error}") from error
    header = records[0] if records else []
    _refuse_repeated(path, header)
    rows, numbers = [], []
    for number, record in enumerate(records[1:], start=2):
        if record and len(record) != len(header):
            raise DatasetError(
                f"{path}, row {number}: {len(header)} cells wanted, one a column of the header, not {len(record)}"
            )
        if record:
            rows.append(dict(zip(header, record, strict=True)))
            numbers.append(number)
    return LabelTable(path, rows, numbers)


def _read_parquet(path: Path) -> LabelTable:
    # Not at the top: a folder with a CSV needs no pyarrow.
    from pyarrow import ArrowException, parquet

    try:
        content = parquet.read_table(path)
        _refuse_repeated(path, content.column_names)
        rows = content.to_pylist()
    except (ArrowException, OSError, ValueError) as error:
        raise DatasetError(f"{path} is not a readable Parquet file: {error}") from error
    for number, row in enumerate(rows, start=1):
        for column, cell in row.items():
            try:
                row[column] = cell_text(cell)
            except TypeError as error:
                raise DatasetError(f"{path}, row {number}: {column} {error}") from error
    return LabelTable(path, rows, list(range(1, len(rows) + 1)))


def _refuse_repeated(path: Path, columns: list[str]) -> None:
    repeated = [column for column in columns if columns.count(column) > 1]
    if repeated:
        raise DatasetError(f"{path}: column {repeated[0]!r} is there {columns.count(repeated[0])} times; rename one")


def cell_text(cell: Any) -> str:
    """A typed cell as it would stand in a CSV: null is unknown, an empty list none.

    Raises:
        TypeError: neither text, number, truth value, time nor a list of these.
    """
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, bool):
        return ("no", "yes")[cell]
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, list):
        return SEPARATOR.join(map(cell_text, cell)) if cell else NONE
    if isinstance(cell, date | datetime):
        return cell.isoformat()
    if isinstance(cell, str | int | float):
        return str(cell).strip()
    raise TypeError(f"is a {type(cell).__name__}; text, numbers, truth values, times and lists of these are labels")
