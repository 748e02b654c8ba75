"""Triton model `decode_image`: an encoded crop to pixels of the size that the image encoder takes.

The steps are those of training: open, to RGB, resize (bicubic); so a crop gets the same pixels here and there.
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

sys.path.append(str(Path(__file__).parents[2] / "gallery_search" / "1"))

from answers import attempt, repository_of, tensor  # noqa: E402
from desk import Desk  # noqa: E402
from gallery_row import InvalidRequest  # noqa: E402
from served_model import ServedModel  # noqa: E402

FORMATS = ("JPEG", "PNG", "WEBP")
MOST_PIXELS = 40_000_000
LIMIT = f"{MOST_PIXELS // 10**6} megapixels"


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.desk = Desk(args)
        self.size = ServedModel.load(repository_of(args)).image_size
        # Pillow decodes and resizes outside Python's global lock.
        self.pool = ThreadPoolExecutor(os.cpu_count())

    def execute(self, requests: list[Any]) -> list[Any]:
        return self.desk.answer(
            requests, lambda request: list(tensor(request, "image").ravel()), self.decode_all, self.pack
        )

    def decode_all(self, images: list[bytes]) -> list[np.ndarray | Exception]:
        return list(self.pool.map(lambda image: attempt(self.decode, image), images))

    def decode(self, image: bytes) -> np.ndarray:
        most = self.desk.settings.largest_image_bytes
        if len(image) > most:
            raise InvalidRequest(
                f"cannot decode image: {len(image) / 2**20:.1f} MiB, above this server's {most / 2**20:g} MiB"
            )
        return decode(image, self.size)

    def pack(self, pixels: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        return {"pixels": np.stack(pixels)}

    def finalize(self) -> None:
        self.pool.shutdown()


def decode(encoded: bytes, size: tuple[int, int]) -> np.ndarray:
    """Pixels uint8 [3, H, W] of an encoded image, turned upright by its EXIF orientation.

    Raises:
        InvalidRequest: not an image, damaged, or above 40 megapixels.
    """
    try:
        with Image.open(BytesIO(encoded), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InvalidRequest(f"cannot decode image: {image.width} x {image.height} pixels, above {LIMIT}")
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        bomb = isinstance(error, Image.DecompressionBombError)
        reason = f"above {LIMIT}" if bomb else f"not one of {', '.join(FORMATS)}"
        raise InvalidRequest(f"cannot decode image: {reason}") from error
    except InvalidRequest:
        raise
    except Exception as error:  # A parser of foreign bytes raises what it likes: SyntaxError, struct.error, ...
        raise InvalidRequest(f"cannot decode image: {error}") from error
    height, width = size
    pixels = np.asarray(upright.resize((width, height), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
