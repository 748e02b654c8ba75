"""Images on their way to the server and to the screen: every one upright, and a damaged one named."""

import io
from pathlib import Path

from PIL import Image, ImageOps

from descry.client.errors import InvalidRequest
from descry.client.references import References

ImageSource = str | Path | bytes | Image.Image


def image_bytes(image: ImageSource) -> bytes:
    """An encoded image: a file's bytes as they are, a PIL image as PNG.

    Raises:
        InvalidRequest: the file cannot be read, or the PIL image is damaged.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        upright(image, "the given image").save(buffer, "PNG")
        return buffer.getvalue()
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"cannot read the image {image}: {error.strerror}") from error


def load_crop(images_root: str | Path, reference: str) -> Image.Image:
    """The crop that a hit refers to (see `references`), RGB.

    Raises:
        InvalidRequest: outside `images_root`, missing, or not an image.
    """
    try:
        with References(Path(images_root)) as references:
            found = references.image(reference)
            if isinstance(found, Image.Image):
                return found
            with Image.open(io.BytesIO(found) if isinstance(found, bytes) else found) as image:
                return upright(image, str(found) if isinstance(found, Path) else reference)
    except (OSError, Image.DecompressionBombError) as error:
        raise InvalidRequest(f"cannot open {reference} below {images_root}: {error}") from error


def upright(image: Image.Image, name: str) -> Image.Image:
    """RGB, turned as its EXIF orientation says: what the server makes of the same file.

    Raises:
        InvalidRequest: the image is damaged; the message calls it `name`.
    """
    try:
        return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # A parser of foreign bytes raises what it likes: SyntaxError, struct.error, ...
        raise InvalidRequest(f"cannot decode {name}: {error}") from error
