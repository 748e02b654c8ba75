"""Colours, cloth and what is drawn onto it: patterns, emblems, seams and the straps of bags."""

import math
from functools import lru_cache

import numpy as np
from PIL import Image

from descry.trainer.datasets.pedestrian_figure import (
    BAG,
    EYE,
    HAIR,
    HAT,
    HIP_HEIGHT,
    LIP,
    LOWER,
    SHOES,
    SKIN,
    STRAP,
    UPPER,
    Person,
)

COLORS = {
    "black": (36, 36, 40), "white": (226, 225, 220), "red": (184, 34, 40), "blue": (42, 82, 168),
    "green": (44, 122, 66), "yellow": (222, 182, 50), "gray": (128, 130, 133), "purple": (112, 60, 142),
    "brown": (106, 76, 52),
}  # fmt: skip
HAIR_COLORS = {"black": (30, 26, 26), "brown": (92, 58, 36), "blond": (204, 164, 92), "gray": (172, 172, 172)}
SKINS = ((238, 200, 172), (224, 176, 142), (196, 146, 110), (150, 104, 74), (98, 66, 48))
ACCESSORIES = ((52, 48, 50), (122, 80, 48), (170, 40, 44), (40, 66, 112), (96, 104, 60), (196, 178, 140), (90, 92, 96))
SHOE_COLORS = ((40, 38, 40), (224, 222, 216), (104, 70, 46), (58, 64, 86), (150, 42, 44))


@lru_cache(maxsize=4)
def _cloth(size: int) -> np.ndarray:
    """A tile of brightness factors like creased cloth, float32 [2 * size, 2 * size]."""
    rng = np.random.default_rng(0)
    total = np.zeros((2 * size, 2 * size), np.float32)
    for across, down, amount in ((10, 6, 0.7), (22, 14, 0.55)):
        coarse = rng.normal(0, amount, (2 * down, 2 * across)).astype(np.float32)
        total += np.asarray(Image.fromarray(coarse).resize((2 * size, 2 * size), Image.Resampling.BICUBIC))
    return 1 + 0.11 * total


def folds(height: int, width: int, offset: int) -> np.ndarray:
    """A window of creased cloth, brightness factors, float32 [height, width]; `offset` selects it."""
    tile = _cloth(height)
    row, column = offset % (tile.shape[0] - height), (offset // 997) % (tile.shape[1] - width)
    return tile[row : row + height, column : column + width]


def _shaded(color: tuple[int, ...], shades: tuple[float, ...]) -> np.ndarray:
    """A person's own shade of a named colour."""
    light, warm, green = shades
    factors = np.array([1 + 0.05 * warm, 1 + 0.035 * green, 1 - 0.05 * warm])
    return np.array(color) * (1 + 0.09 * light) * factors + 5 * light


@lru_cache(maxsize=256)
def palette(person: Person) -> np.ndarray:
    """Colour of each material, float32 [materials, 3]."""
    look, build = person.appearance, person.build
    tone = build.skin * (len(SKINS) - 1.001)
    share, darker = tone % 1, int(tone)
    skin = np.array(SKINS[darker]) * (1 - share) + np.array(SKINS[darker + 1]) * share
    colors = np.zeros((11, 3))
    colors[SKIN] = skin
    colors[LIP] = skin * (0.80, 0.58, 0.58)
    colors[EYE] = skin * 0.34
    colors[HAIR] = _shaded(HAIR_COLORS[look.hair_color], build.shades[:3])
    colors[UPPER] = _shaded(COLORS[look.upper_color], build.shades[3:6])
    colors[LOWER] = _shaded(COLORS[look.lower_color], build.shades[6:9])
    colors[SHOES] = SHOE_COLORS[int(build.shoes * len(SHOE_COLORS))]
    colors[HAT] = ACCESSORIES[int(build.hat_color * len(ACCESSORIES))]
    colors[BAG] = ACCESSORIES[int(build.bag_color * len(ACCESSORIES))]
    colors[STRAP] = colors[BAG] * 0.72
    return colors.clip(8, 250).astype(np.float32)


def decorate(
    person: Person,
    lean: float,
    colors: np.ndarray,
    material: np.ndarray,
    body: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Draw the pattern of the top and the straps of bags into `colors`, float32 [P, 3]."""
    look, build = person.appearance, person.build
    top = np.flatnonzero(material == UPPER)
    x, y, z = (axis[top] for axis in body)
    above = y - HIP_HEIGHT
    y, z = above * math.cos(lean) + z * math.sin(lean), z * math.cos(lean) - above * math.sin(lean)
    own = colors[top[0]].copy() if len(top) else np.zeros(3, np.float32)
    dark = own.mean() < 95
    contrast = np.array(
        [(232, 230, 224), (226, 196, 110)][int(build.pattern_color * 2)] if dark else (34, 34, 46), np.float32
    )
    period = 0.042 + 0.026 * build.pattern_scale
    torso = np.abs(x) < 0.12
    if look.upper_pattern == "striped":
        colors[top[(y / period) % 1 < 0.42]] = contrast
    elif look.upper_pattern == "plaid":
        bands = ((y / period) % 1 < 0.4).astype(np.float32) + ((x / period) % 1 < 0.4)
        colors[top] += (0.42 * bands)[:, None] * (contrast - own)
    elif look.upper_pattern == "logo":
        size = 0.045 + 0.015 * build.pattern_scale
        emblem = torso & ((x / size) ** 2 + ((y - 0.20) / (0.8 * size)) ** 2 < 1)
        colors[top[emblem]] = contrast
    elif build.garment > 0.55:
        seam = (np.abs(x) < (0.006 if build.garment < 0.8 else 0.016)) & (z > 0)
        colors[top[seam]] = own * 0.55 if build.garment < 0.8 else contrast
    strap = np.zeros(len(top), bool)
    if "backpack" in look.bag:
        strap |= (np.abs(np.abs(x) - 0.068) < 0.013) & (y > 0.10) & (z > -0.02)
    if "shoulder_bag" in look.bag:
        side = 1 if build.bag_side > 0.5 else -1
        strap |= torso & (np.abs(side * x + 0.075 - 0.17 * (0.30 - y) / 0.27) < 0.012)
    colors[top[strap]] = palette(person)[STRAP]
