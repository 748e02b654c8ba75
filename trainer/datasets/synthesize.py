"""Renders the synthetic dataset into a folder; `--sheet` also draws a contact sheet of it."""

import argparse
import sys
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from descry.trainer.datasets import folder
from descry.trainer.datasets.persons import DataConfig, DatasetError, PersonDataset
from descry.trainer.datasets.synthetic import Parameters, generate
from descry.trainer.schema import NONE

ENLARGEMENT = 2
SHEET_COLUMNS, SHEET_ROWS = 10, 6
CAPTION_HEIGHT = 34
LETTER_WIDTH = 5
UNREMARKABLE = ("no", "adult", "plain", NONE)


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from `128x64`.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    height, separator, width = text.partition("x")
    if not (separator and height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, e.g. 128x64")
    return int(height), int(width)


def draw_sheet(dataset: PersonDataset, columns: int = SHEET_COLUMNS, rows: int = SHEET_ROWS) -> Image.Image:
    """A contact sheet, enlarged twice: one person a row, with what is remarkable about the person below it."""
    first_rows = np.unique(dataset.persons, return_index=True)[1][:rows]
    with Image.open(dataset.images[0]) as image:
        width, height = (side * ENLARGEMENT for side in image.size)
    columns = min(columns, int(np.unique(dataset.persons, return_counts=True)[1].max()))
    sheet = Image.new("RGB", (columns * width, len(first_rows) * (height + CAPTION_HEIGHT)), "white")
    pen = ImageDraw.Draw(sheet)
    for line, first in enumerate(first_rows):
        top = line * (height + CAPTION_HEIGHT)
        own = np.flatnonzero(dataset.persons == dataset.persons[first])[:columns]
        for column, row in enumerate(own):
            with Image.open(dataset.images[row]) as image:
                sheet.paste(image.resize((width, height), Image.Resampling.BICUBIC), (column * width, top))
        caption = textwrap.fill(_caption(dataset, int(first)), sheet.width // LETTER_WIDTH)
        pen.multiline_text((4, top + height + 3), caption, fill="black", spacing=2)
    return sheet


def _caption(dataset: PersonDataset, row: int) -> str:
    values = dataset.schema.decode(dataset.attributes[row])
    shown = [f"{name} {'+'.join(value)}" for name, value in values.items() if value and value[0] not in UNREMARKABLE]
    return f"person {dataset.persons[row]} ({dataset.splits[row]}): " + ", ".join(shown)


def main(arguments: list[str] | None = None) -> int:
    """Render, and say where; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m descry.trainer.datasets.synthesize", description=__doc__)
    parser.add_argument("root", type=Path, help="folder to make")
    parser.add_argument("--persons", type=int, default=Parameters.persons)
    parser.add_argument("--images-per-person", type=int, default=Parameters.images_per_person)
    parser.add_argument("--cameras", type=int, default=Parameters.cameras)
    parser.add_argument("--size", type=parse_size, default=Parameters.size, help="HEIGHTxWIDTH in pixels")
    parser.add_argument("--seed", type=int, default=Parameters.seed)
    parser.add_argument("--workers", type=int, default=2, help="processes; any number gives the same dataset")
    parser.add_argument("--sheet", type=Path, help="image file of a contact sheet to draw as well")
    given = parser.parse_args(arguments)
    try:
        generate(
            given.root, given.persons, given.images_per_person, given.cameras, given.size, given.seed, given.workers
        )
        dataset = folder.load(DataConfig(name="folder", root=str(given.root)))
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 2
    if given.sheet:
        draw_sheet(dataset).save(given.sheet)
    print(f"{given.root}: {len(dataset)} images of {len(np.unique(dataset.persons))} persons")
    return 0


if __name__ == "__main__":
    sys.exit(main())
