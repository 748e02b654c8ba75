"""Which regions of a crop a ranking rests on: each is covered in turn, and the distance measured again.

This asks the served model itself and needs nothing of its inside, so it is the same for every method.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from descry.client import SearchClient
from descry.client.statements import Statements

ROWS, COLUMNS = 8, 4
AT_ONCE = 8  # requests
SEEN = 0.3  # share of the photo that shows where nothing counts


def regions(client: SearchClient, crop: Image.Image, statements: Statements, par_weight: float | None) -> np.ndarray:
    """What covering each region adds to the distance from the description, float [ROWS, COLUMNS]; below 0 it helps."""
    # The schema is fetched before the threads share the client.
    assert client.schema
    with ThreadPoolExecutor(AT_ONCE) as pool:
        distances = pool.map(lambda one: client.match(one, statements, par_weight).distance, [crop, *_covered(crop)])
        whole, *parts = distances
    return np.array(parts).reshape(ROWS, COLUMNS) - whole


def shaded(crop: Image.Image, effect: np.ndarray) -> Image.Image:
    """The crop, dark where nothing counts: what makes it fit is lit, what speaks against it is red."""
    strength = effect / max(float(np.abs(effect).max()), 1e-9)
    scaled = Image.fromarray(strength.astype(np.float32)).resize(crop.size, Image.Resampling.BICUBIC)
    weight = np.clip(np.asarray(scaled), -1, 1)[..., np.newaxis]
    pixels = np.asarray(crop, np.float32)
    # The root, so that what counts a quarter as much as the most is lit half.
    light = SEEN + (1 - SEEN) * np.sqrt(np.abs(weight))
    red = np.array([220, 40, 40], np.float32)
    against = np.clip(-weight, 0, 1) * 0.5
    return Image.fromarray(np.clip(pixels * light * (1 - against) + red * against, 0, 255).astype(np.uint8))


def _covered(crop: Image.Image) -> list[Image.Image]:
    """The crop with one region after the other in its mean colour."""
    mean = tuple(int(value) for value in np.asarray(crop).mean((0, 1)))
    covered = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            box = (
                column * crop.width // COLUMNS,
                row * crop.height // ROWS,
                (column + 1) * crop.width // COLUMNS,
                (row + 1) * crop.height // ROWS,
            )
            part = crop.copy()
            part.paste(mean, box)
            covered.append(part)
    return covered
