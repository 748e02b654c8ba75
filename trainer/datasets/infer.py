"""A schema guessed from a table of labels, for its user to correct.

A column whose cells are all of one pair (0/1, no/yes, false/true) becomes a binary group, a column with `+` in a cell
a multi, any other a choice. The body part follows from the words of the column's name, `identity` if none is known.
"""

import os
import re
from collections import Counter
from pathlib import Path

from descry.trainer.datasets.persons import DatasetError
from descry.trainer.datasets.table import RESERVED, SEPARATOR, LabelTable, find_table, read_table
from descry.trainer.schema import NONE, AttributeGroup, AttributeSchema

PAIRS = (("0", "1"), ("no", "yes"), ("false", "true"), ("False", "True"))
# A column with more is an id or a note.
MOST_VALUES = 50
PART_WORDS = {
    "head": "head face hair beard hat cap helmet hood glasses sunglasses eyewear mask scarf muffler headphone",
    "upper": "upper top torso sleeve shirt tshirt blouse jacket coat sweater hoodie vest suit",
    "lower": "lower bottom leg trousers pants jeans shorts skirt dress leggings shoe boot sneaker sandal footwear",
    "carrying": "carrying carry holding bag backpack rucksack handbag suitcase luggage umbrella stroller",
}


def infer_schema(name: str, table: LabelTable) -> AttributeSchema:
    """Guess a schema: see the module's text.

    Raises:
        DatasetError: no attribute column, or one without any value or with too many; the message names it.
    """
    if not table.groups:
        raise DatasetError(f"{table.path}: no attribute column beside {', '.join(RESERVED)}")
    return AttributeSchema(name, tuple(_infer_group(table, column) for column in table.groups))


def _infer_group(table: LabelTable, column: str) -> AttributeGroup:
    cells = {row[column] for row in table.rows} - {""}
    for pair in PAIRS:
        if cells and cells <= set(pair):
            return AttributeGroup(column, pair, "binary", guess_part(column))
    values = tuple(sorted({value for cell in cells for value in cell.split(SEPARATOR)} - {NONE}))
    if not values:
        raise DatasetError(f"{table.path}: column {column!r} has no value in any row: fill it or remove it")
    if len(values) > MOST_VALUES:
        raise DatasetError(
            f"{table.path}: column {column!r} has {len(values)} distinct values, e.g. {values[0]!r} and {values[1]!r}: "
            f"an id or a note is no attribute; remove the column, or give it one of the names {', '.join(RESERVED)} "
            "if it is that. A true attribute of so many values needs a schema.json written by hand"
        )
    kind = "multi" if any(SEPARATOR in cell for cell in cells) else "choice"
    return AttributeGroup(column, values, kind, guess_part(column))


def guess_part(column: str) -> str:
    """The body part that the first known word of a column's name says, e.g. `upper` of `sleeveLength`."""
    for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", column):
        for part, words in PART_WORDS.items():
            if {word.lower(), word.lower().removesuffix("s")} & set(words.split()):
                return part
    return "identity"


def write_schema(root: Path, labels: str = "", force: bool = False) -> tuple[Path, str]:
    """Write `root/schema.json` for the user to edit.

    Args:
        root: the folder of crops.
        labels: the label file; empty = the one in `root`.
        force: replace an existing schema.

    Returns:
        The file, and what was guessed as a table to read.

    Raises:
        DatasetError: there is a schema already, or the labels cannot be read or make no schema.
    """
    path = root / "schema.json"
    if path.exists() and not force:
        raise DatasetError(f"{path} exists; --force replaces it and any correction made in it")
    table = read_table(find_table(root, labels))
    schema = infer_schema(root.resolve().name, table)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(schema.to_json(), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path, describe(schema, table)


def describe(schema: AttributeSchema, table: LabelTable) -> str:
    """One line a group: its kind, part, and its values with the number of rows that have them."""
    lines = [("group", "kind", "part", "values (rows)")]
    for group in schema.groups:
        counts = Counter(value for row in table.rows for value in row[group.name].split(SEPARATOR))
        shown = [f"{value} {counts[value]}" for value in (*group.values, NONE) if counts[value] or value != NONE]
        unknown = [f"unknown {counts['']}"] if counts[""] else []
        lines.append((group.name, group.kind, group.part, ", ".join(shown + unknown)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(map(str.rstrip, padded))
