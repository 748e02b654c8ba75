"""A contact sheet: crops of a dataset with their labels beneath, for a look before training."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from descry.trainer.datasets.persons import DatasetError, PersonDataset
from descry.trainer.schema import NONE
from descry.trainer.transforms import read_image

CELL_WIDTH, CELL_HEIGHT = 144, 288
GAP = 12
FONT_SIZE, LINE_HEIGHT = 11, 14
# Every letter of this font is equally wide, so that a caption breaks exactly where its strip ends.
FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSansMono.ttf")
# Values that say no more than that there is nothing to see.
UNREMARKABLE = ("no", "0", "false", "False", "adult", "plain", "nothing", NONE)
NO_BREAK = "\N{NO-BREAK SPACE}"
YES = ("yes", "1", "true", "True")


@dataclass(frozen=True)
class Strip:
    """Crops with one caption: all of one person, or a single one.

    Attributes:
        rows: of the dataset.
        lines: the caption, broken to the width of the crops.
    """

    rows: list[int]
    lines: list[str]

    @property
    def width(self) -> int:
        """Of the crops, in pixels."""
        return len(self.rows) * CELL_WIDTH


def draw_sheet(dataset: PersonDataset, rows: int = 6, columns: int = 10, seed: int = 0) -> Image.Image:
    """Draw crops chosen at random: persons with their images side by side, or single crops where few persons are known.

    Args:
        dataset: at least one crop.
        rows: lines of crops at most.
        columns: crops of a line at most.
        seed: of the choice.

    Raises:
        DatasetError: there is no crop, one does not decode, or rows or columns are below 1.
    """
    if not len(dataset) or rows < 1 or columns < 1:
        raise DatasetError(f"{dataset.name}: {len(dataset)} crops in {rows} rows of {columns}: nothing to draw")
    lines = _arrange(dataset, rows, columns, np.random.default_rng(seed))
    heights = [CELL_HEIGHT + LINE_HEIGHT * max(len(strip.lines) for strip in line) + 2 * GAP for line in lines]
    width = max(sum(strip.width + GAP for strip in line) for line in lines) + GAP
    sheet = Image.new("RGB", (width, sum(heights) + GAP), "white")
    top = GAP
    for line, height in zip(lines, heights, strict=True):
        left = GAP
        for strip in line:
            _draw_strip(sheet, dataset, strip, left, top)
            left += strip.width + GAP
        top += height
    return sheet


def _arrange(dataset: PersonDataset, rows: int, columns: int, generator: np.random.Generator) -> list[list[Strip]]:
    """Put strips, in random order, into the first line that has room, until the lines are full."""
    letter_width = ImageFont.truetype(FONT, FONT_SIZE).getlength("m")
    lines: list[list[Strip]] = [[] for _ in range(rows)]
    free = np.full(rows, columns)
    for own in _strips(dataset, generator):
        shown = np.sort(generator.permutation(own)[:columns]).tolist()
        room = np.flatnonzero(free >= len(shown))
        if len(room):
            letters = int(len(shown) * CELL_WIDTH / letter_width)
            lines[room[0]].append(Strip(shown, _wrap(caption(dataset, shown), letters)))
            free[room[0]] -= len(shown)
        if not free.any():
            break
    return [line for line in lines if line]


def _strips(dataset: PersonDataset, generator: np.random.Generator) -> list[np.ndarray]:
    """Rows of each strip, in random order: those of a person where most crops have one, else single crops."""
    known = np.flatnonzero(dataset.persons >= 0)
    if 2 * len(known) <= len(dataset):
        return list(generator.permutation(len(dataset))[:, None])
    known = known[np.argsort(dataset.persons[known], kind="stable")]
    people = np.split(known, np.unique(dataset.persons[known], return_index=True)[1][1:])
    return [people[number] for number in generator.permutation(len(people))]


def caption(dataset: PersonDataset, rows: list[int]) -> list[str]:
    """What the labels say of the crops at `rows`: whose they are, then a text a group.

    Unremarkable values are left out, unknown ones are `?`, and values that differ between the crops are joined by `/`.
    """
    person = int(dataset.persons[rows[0]])
    splits = "/".join(dict.fromkeys(dataset.splits[rows].tolist()))
    texts = [f"{f'person {person}' if person >= 0 else dataset.images[rows[0]].stem} ({splits})"]
    decoded = [dataset.schema.decode(dataset.attributes[row]) for row in rows]
    for group in dataset.schema.groups:
        values = "/".join(dict.fromkeys("+".join(labels[group.name]) or "?" for labels in decoded))
        if values in YES:
            texts.append(group.name)
        elif values not in UNREMARKABLE and not values.startswith("no_"):
            texts.append(f"{group.name} {values}")
    return texts


def _wrap(texts: list[str], letters: int) -> list[str]:
    """Lines of a width in letters; a text that fits into one is not broken."""
    whole = [text if len(text) >= letters else text.replace(" ", NO_BREAK) for text in texts]
    return textwrap.wrap(": ".join((whole[0], ", ".join(whole[1:]))).removesuffix(": "), letters)


def _draw_strip(sheet: Image.Image, dataset: PersonDataset, strip: Strip, left: int, top: int) -> None:
    for column, row in enumerate(strip.rows):
        image = read_image(dataset.images[row])
        cell = ImageOps.pad(image, (CELL_WIDTH, CELL_HEIGHT), Image.Resampling.BICUBIC, color="#eeeeee")
        sheet.paste(cell, (left + column * CELL_WIDTH, top))
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT, FONT_SIZE)
    for number, line in enumerate(strip.lines):
        pen.text((left, top + CELL_HEIGHT + 4 + number * LINE_HEIGHT), line, fill="black", font=font)
