"""Crops of the indexed folder as data that stands in the page itself: no file of them has an address."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from descry.client import InvalidRequest
from descry.client.images import load_crop

SMALL, LARGE = (128, 256), (320, 640)  # pixels, width and height
QUALITY = 82


class Crops:
    """The crops below one folder; without a folder there are none."""

    def __init__(self, root: Path | None) -> None:
        """Name the folder."""
        self.root = root

    def load(self, reference: str) -> Image.Image:
        """One crop, RGB.

        Raises:
            InvalidRequest: it cannot be shown.
        """
        if self.root is None:
            raise InvalidRequest("the page was started without --images: there is no crop to look at")
        return load_crop(self.root, reference)

    def tags(self, references: Sequence[tuple[str, str]], size: tuple[int, int] = SMALL) -> list[str]:
        """An `<img>` for each reference and its description in words, or a placeholder that says so."""
        return [self.tag(reference, words, size) for reference, words in references]

    def tag(self, reference: str, words: str, size: tuple[int, int] = SMALL) -> str:
        """As `tags`, of one."""
        try:
            return image_tag(self.load(reference), words, size)
        except InvalidRequest:
            return f'<span class="no-image" role="img" aria-label="{escape(words)}, no image">no image</span>'


def image_tag(image: Image.Image, words: str, size: tuple[int, int]) -> str:
    """An `<img>` that holds the image, whole, at most `size` (width, height)."""
    shown = image.convert("RGB")
    shown.thumbnail(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=QUALITY)
    return picture_tag(buffer.getvalue(), "jpeg", words, shown.size)


def picture_tag(content: bytes, kind: str, words: str, size: tuple[int, int]) -> str:
    """An `<img>` that holds an encoded picture of this size."""
    data = base64.b64encode(content).decode()
    return (
        f'<img src="data:image/{kind};base64,{data}" alt="{escape(words)}" width="{size[0]}" height="{size[1]}" '
        'decoding="sync">'
    )
