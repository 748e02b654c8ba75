"""Draws a ranking as a picture: the crops in order, uncropped, with what agrees and what does not."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from descry.client.errors import InvalidRequest
from descry.client.images import load_crop
from descry.client.results import Hit
from descry.client.schema import Agreement

CROP = (128, 256)  # width, height of a crop's place, pixels
MARGIN = 16
CELL_WIDTH = 176
LINE = 18
INK, FAINT, AGREES, DIFFERS = "#1a1a1a", "#6b6b6b", "#1a7f37", "#b42318"


def thumbnail(images_root: str | Path | None, reference: str, size: tuple[int, int] = CROP) -> Image.Image:
    """The whole crop fitted into `size` (width, height); a labelled placeholder where it cannot be shown."""
    place = Image.new("RGB", size, "#f0f0f0")
    try:
        if images_root is None:
            raise InvalidRequest("no image folder")
        crop = load_crop(images_root, reference)
    except InvalidRequest:
        draw = ImageDraw.Draw(place)
        draw.rectangle((0, 0, size[0] - 1, size[1] - 1), outline="#c0c0c0")
        draw.text((size[0] / 2, size[1] / 2), "no image", FAINT, font=_font(13), anchor="mm")
        return place
    scale = min(size[0] / crop.width, size[1] / crop.height)
    shown = crop.resize(
        (max(1, round(crop.width * scale)), max(1, round(crop.height * scale))), Image.Resampling.BICUBIC
    )
    place.paste(shown, ((size[0] - shown.width) // 2, (size[1] - shown.height) // 2))
    return place


def draw_grid(hits: Sequence[Hit], images_root: str | Path, path: str | Path, title: str, columns: int = 6) -> None:
    """Write a picture of ranked hits.

    Args:
        hits: best first; each shows rank, distance, id and one line a stated attribute.
        images_root: the folder that `hit.image` is relative to.
        path: the picture to write; the ending chooses the format.
        title: a line above the crops, such as the description.
        columns: crops in a row.

    Raises:
        InvalidRequest: no hits, or the picture cannot be written.
    """
    if not hits:
        raise InvalidRequest("there are no hits to draw")
    columns = min(columns, len(hits))
    rows = math.ceil(len(hits) / columns)
    cell_height = CROP[1] + LINE * (3 + len(hits[0].agreement)) + MARGIN
    width = max(MARGIN * 2 + columns * CELL_WIDTH, 480)
    lines = _wrap(title, _font(16), width - 2 * MARGIN)
    top = MARGIN + len(lines) * 22 + MARGIN // 2
    picture = Image.new("RGB", (width, top + rows * cell_height), "white")
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + number * 22), line, INK, font=_font(16))
    for index, hit in enumerate(hits):
        corner = (MARGIN + index % columns * CELL_WIDTH, top + index // columns * cell_height)
        picture.paste(thumbnail(images_root, hit.image), corner)
        _caption(draw, hit, (corner[0], corner[1] + CROP[1] + 4))
    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot write the picture {path}: {error}") from error


def _caption(draw: ImageDraw.ImageDraw, hit: Hit, corner: tuple[int, int]) -> None:
    """Rank, distance, id and the agreement below a crop."""
    left, top = corner
    room = CELL_WIDTH - 12
    draw.text((left, top), f"{hit.rank}", INK, font=_font(15))
    draw.text((left + CROP[0], top + 2), f"{hit.distance:.3f}", INK, font=_font(13), anchor="ra")
    draw.text((left, top + LINE), _shorten(hit.id, _font(12), room), FAINT, font=_font(12))
    for number, agreement in enumerate(hit.agreement):
        _agreement_line(draw, agreement, (left, top + LINE * (2 + number)), room)


def _agreement_line(draw: ImageDraw.ImageDraw, agreement: Agreement, corner: tuple[int, int], room: int) -> None:
    """A tick or a cross, then the attribute; a cross also says what the photo shows instead."""
    left, top = corner
    color = AGREES if agreement.agrees else DIFFERS
    if agreement.agrees:
        draw.line([(left, top + 8), (left + 4, top + 12), (left + 10, top + 3)], color, width=2)
    else:
        draw.line([(left + 1, top + 3), (left + 10, top + 12)], color, width=2)
        draw.line([(left + 1, top + 12), (left + 10, top + 3)], color, width=2)
    text = f"{agreement.group}: {agreement.predicted}"
    draw.text((left + 15, top), _shorten(text, _font(12), room - 15), color, font=_font(12))


def _shorten(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """Cut the middle out of a text that is wider than `room` pixels."""
    if font.getlength(text) <= room:
        return text
    keep = len(text) // 2
    while keep > 1 and font.getlength(f"{text[:keep]}...{text[-keep:]}") > room:
        keep -= 1
    return f"{text[:keep]}...{text[-keep:]}"


def _wrap(text: str, font: ImageFont.FreeTypeFont, room: float) -> list[str]:
    """Break a text at spaces into lines of at most `room` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= room or not lines[-1] else [*lines, word]
    return lines


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow lacks FreeType"
    return font
