"""The places that synthetic cameras watch: one wide still per camera, of which every crop shows a window."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Color = np.ndarray | tuple[int, int, int]

STYLES = ("brick", "park", "road", "shops", "hall", "concrete")
GROUNDS = {
    "brick": (146, 140, 132), "park": (96, 122, 66), "road": (98, 99, 103), "shops": (166, 158, 146),
    "hall": (176, 170, 160), "concrete": (138, 139, 138),
}  # fmt: skip


@dataclass(frozen=True)
class Camera:
    """How one camera sees; constant over its images.

    Attributes:
        style: one of `STYLES`.
        seed: draws the still.
        yaw: mean direction of walking, radians.
        pitch: how far it looks down, radians.
        gain: colour cast, a factor a channel.
        brightness: factor.
        contrast: exponent-free contrast factor about mid-gray.
        blur: standard deviation in pixels of a 128-pixel crop.
        noise: standard deviation of sensor noise in gray levels.
        quality: of its JPEG encoder, 1..95.
        light: unit vector to the light: right, down, to the viewer.
        shadow: darkness of cast shadows, 0..1.
    """

    style: str
    seed: int
    yaw: float
    pitch: float
    gain: tuple[float, float, float]
    brightness: float
    contrast: float
    blur: float
    noise: float
    quality: int
    light: tuple[float, float, float]
    shadow: float


@lru_cache(maxsize=64)
def camera_of(seed: int, number: int) -> Camera:
    """Camera `number`, from 1, of the dataset with this seed."""
    rng = np.random.default_rng([seed, 1, number])
    style = STYLES[(number - 1 + seed) % len(STYLES)]
    warmth, tint = rng.normal(0, 0.055), rng.normal(0, 0.025)
    across, above = rng.uniform(-0.7, 0.7), rng.uniform(0.45, 0.75)
    length = math.sqrt(across**2 + above**2 + 0.7**2)
    return Camera(
        style=style,
        seed=int(rng.integers(2**31)),
        yaw=float(rng.uniform(-math.pi, math.pi)),
        pitch=float(rng.uniform(0.06, 0.30)),
        gain=(1 + warmth, 1 + tint, 1 - warmth),
        brightness=float(rng.uniform(0.80, 1.16)),
        contrast=float(rng.uniform(0.85, 1.15)),
        blur=float(rng.choice([0.0, 0.35, 0.6, 0.85])),
        noise=float(rng.uniform(1.0, 5.5)),
        quality=int(rng.choice([60, 75, 85, 92])),
        light=(across / length, -above / length, 0.7 / length),
        shadow=0.2 if style == "hall" else float(rng.uniform(0.25, 0.6)),
    )


@lru_cache(maxsize=64)
def still(camera: Camera, height: int) -> np.ndarray:
    """The empty scene, RGB, uint8 [2 * height, 6 * height, 3], for crops of `height` pixels.

    Feet stand near row 1.55 * height.
    """
    rng = np.random.default_rng(camera.seed)
    rows, columns = 2 * height, 6 * height
    base = int(height * (1.5 - 0.9 * camera.pitch - 0.12))
    image = Image.fromarray(_backdrop(rng, camera.style, rows, columns, base))
    pen = ImageDraw.Draw(image)
    BACKDROPS[camera.style](pen, rng, height, columns, base)
    pixels = np.asarray(image, np.float32)
    pixels = np.concatenate([pixels[:base], _ground(rng, camera.style, rows - base, columns, height)])
    pixels *= _speckle(rng, (rows, columns), height // 10, 0.10)[..., None]
    pixels *= _speckle(rng, (rows, columns), 2, 0.035 if camera.style != "park" else 0.13)[..., None]
    pixels[base : base + max(height // 40, 1)] *= 0.72
    return np.asarray(_soften(pixels, height / 220))


def _soften(pixels: np.ndarray, radius: float) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))


def _speckle(rng: np.random.Generator, shape: tuple[int, int], grain: int, amount: float) -> np.ndarray:
    """Brightness factors around 1, float32, that vary smoothly over `grain` pixels."""
    coarse = rng.normal(1, amount, (shape[0] // grain + 2, shape[1] // grain + 2)).astype(np.float32)
    image = Image.fromarray(coarse).resize((coarse.shape[1] * grain, coarse.shape[0] * grain), Image.Resampling.BICUBIC)
    return np.asarray(image)[: shape[0], : shape[1]]


def _backdrop(rng: np.random.Generator, style: str, rows: int, columns: int, base: int) -> np.ndarray:
    tones = {
        "brick": (150, 92, 72), "park": (92, 118, 72), "road": (170, 168, 162), "shops": (120, 112, 104),
        "hall": (206, 200, 188), "concrete": (158, 158, 154),
    }  # fmt: skip
    pixels = np.empty((rows, columns, 3), np.float32)
    pixels[:] = np.array(tones[style], np.float32) * rng.uniform(0.85, 1.1)
    pixels *= np.linspace(1.08, 0.94, rows, dtype=np.float32)[:, None, None]
    if style == "brick":
        size = max(base // 30, 3)
        row, column = np.mgrid[0:rows, 0:columns]
        line = row // size
        stone = (column + (line % 2) * size) // (2 * size)
        tone = rng.normal(1, 0.09, (line.max() + 1, stone.max() + 1)).astype(np.float32)
        pixels *= tone[line, stone][..., None]
        mortar = (row % size == 0) | ((column + (line % 2) * size) % (2 * size) == 0)
        pixels[mortar] = pixels[mortar] * 0.6 + 60
    return pixels.clip(0, 255).astype(np.uint8)


def _ground(rng: np.random.Generator, style: str, rows: int, columns: int, height: int) -> np.ndarray:
    """Ground in perspective, float32 [rows, columns, 3]."""
    pixels = np.empty((rows, columns, 3), np.float32)
    pixels[:] = np.array(GROUNDS[style], np.float32) * rng.uniform(0.88, 1.08)
    pixels *= np.linspace(0.93, 1.06, rows, dtype=np.float32)[:, None, None]
    distance = 1 / (np.arange(rows, dtype=np.float32)[:, None] / height + 0.55)
    across = (np.arange(columns, dtype=np.float32)[None] - columns / 2) / height * distance
    if style in ("brick", "shops", "hall"):
        size = rng.uniform(0.13, 0.22)
        line, tile = np.floor(distance / size * 2.2).astype(int), np.floor(across / size).astype(int)
        tones = rng.normal(1, 0.05, (line.max() + 1, tile.max() - tile.min() + 1)).astype(np.float32)
        pixels *= tones[line + np.zeros_like(tile), tile - tile.min()][..., None]
        grout = ((across / size) % 1 < 0.05) | ((distance / size * 2.2) % 1 < 0.06)
        pixels[grout] *= 0.86
    elif style == "road":
        pixels[distance[:, 0] > 1.42] = (158, 154, 148)
        pixels[np.abs(distance[:, 0] - 1.45) < 0.03] *= 1.15
        marking = (np.abs(distance - 1.0) < 0.018) & (across % 0.9 < 0.5)
        pixels[marking] = (214, 212, 204)
    elif style == "park":
        bend = 0.16 * np.sin(across * 2.1)
        pixels[np.abs(distance - 1.02 + bend) < 0.2] = (176, 160, 132)
    return pixels


def _box(pen: ImageDraw.ImageDraw, left: float, top: float, right: float, bottom: float, color: Color) -> None:
    pen.rectangle((left, top, max(right, left), max(bottom, top)), fill=tuple(int(value) for value in color))


def _muted(rng: np.random.Generator, darkest: float, lightest: float) -> np.ndarray:
    """A colour that does not shout down the clothes in front of it."""
    return (rng.uniform(darkest, lightest) + rng.normal(0, 7, 3)).clip(0, 255)


def _windows(pen: ImageDraw.ImageDraw, rng: np.random.Generator, height: int, columns: int, base: int) -> None:
    x = rng.uniform(0, 0.4) * height
    while x < columns:
        wide = rng.uniform(0.35, 0.6) * height
        if rng.random() < 0.35:
            _box(pen, x, base - 0.85 * height, x + 0.42 * height, base, (96, 92, 88))
            _box(pen, x + 0.04 * height, base - 0.8 * height, x + 0.38 * height, base, _muted(rng, 40, 110))
        else:
            _box(pen, x, base - 1.0 * height, x + wide, base - 0.35 * height, (206, 202, 194))
            for pane in range(2):
                left = x + (0.04 + pane * 0.5) * wide
                _box(
                    pen,
                    left,
                    base - 0.96 * height,
                    left + 0.42 * wide,
                    base - 0.39 * height,
                    rng.uniform(40, 90) * np.array([0.9, 1, 1.15]),
                )
        x += wide + rng.uniform(0.25, 0.8) * height


def _trees(pen: ImageDraw.ImageDraw, rng: np.random.Generator, height: int, columns: int, base: int) -> None:
    for top, size, tone in ((1.1, 0.34, 0.9), (0.55, 0.22, 0.75), (0.3, 0.16, 0.62)):
        for x in np.arange(0, columns, 0.09 * height):
            radius = size * height * rng.uniform(0.6, 1.2)
            y = base - rng.uniform(0.1, top) * height
            color = np.array([70, 104, 48]) * tone * rng.uniform(0.65, 1.3)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(int(value) for value in color))
    for place in np.arange(0.2 * height, columns, 0.9 * height):
        x = place + rng.uniform(-0.2, 0.2) * height
        wide = rng.uniform(0.04, 0.09) * height
        _box(pen, x, 0, x + wide, base, (74, 58, 44))
        _box(pen, x + 0.65 * wide, 0, x + wide, base, (56, 44, 34))


def _cars(pen: ImageDraw.ImageDraw, rng: np.random.Generator, height: int, columns: int, base: int) -> None:
    _windows(pen, rng, height, columns, int(base - 0.12 * height))
    x = rng.uniform(-0.5, 0.3) * height
    while x < columns:
        long, tall = rng.uniform(1.3, 1.6) * height, rng.uniform(0.4, 0.5) * height
        paint = rng.choice([(188, 190, 192), (54, 56, 62), (150, 34, 34), (36, 62, 112), (228, 228, 224)])
        roof = [
            (x + 0.22 * long, base - 0.55 * tall),
            (x + 0.34 * long, base - tall),
            (x + 0.7 * long, base - tall),
            (x + 0.84 * long, base - 0.55 * tall),
        ]
        pen.polygon(roof, fill=(58, 66, 74))
        pen.line(roof, fill=tuple(paint.tolist()), width=max(height // 40, 1))
        pen.rounded_rectangle(
            (x, base - 0.6 * tall, x + long, base - 0.12 * tall), 0.12 * tall, fill=tuple(paint.tolist())
        )
        for wheel in (0.2, 0.8):
            middle, radius = x + wheel * long, 0.19 * tall
            pen.ellipse((middle - radius, base - 2 * radius, middle + radius, base), fill=(30, 30, 32))
        x += long + rng.uniform(0.2, 1.6) * height


def _shops(pen: ImageDraw.ImageDraw, rng: np.random.Generator, height: int, columns: int, base: int) -> None:
    x = 0.0
    while x < columns:
        wide = rng.uniform(0.7, 1.3) * height
        _box(pen, x, base - 1.35 * height, x + wide, base - 1.02 * height, _muted(rng, 50, 190))
        _box(pen, x + 0.05 * wide, base - 1.0 * height, x + 0.95 * wide, base - 0.14 * height, _muted(rng, 50, 110))
        for _ in range(7):
            left, tall = x + rng.uniform(0.08, 0.8) * wide, rng.uniform(0.12, 0.5) * height
            _box(pen, left, base - 0.2 * height - tall, left + 0.1 * wide, base - 0.2 * height, _muted(rng, 60, 215))
        x += wide


def _signs(pen: ImageDraw.ImageDraw, rng: np.random.Generator, height: int, columns: int, base: int) -> None:
    _box(pen, 0, base - 0.1 * height, columns, base, (120, 114, 106))
    x = rng.uniform(0, 0.6) * height
    while x < columns:
        wide = rng.uniform(0.3, 0.7) * height
        if rng.random() < 0.5:
            _box(pen, x, base - 1.0 * height, x + wide, base - 0.4 * height, _muted(rng, 70, 200))
            _box(pen, x + 0.1 * wide, base - 0.9 * height, x + 0.9 * wide, base - 0.65 * height, _muted(rng, 120, 235))
        else:
            _box(pen, x, base - 1.2 * height, x + 0.5 * wide, base, (150, 150, 150))
            _box(
                pen,
                x + 0.03 * wide,
                base - 1.17 * height,
                x + 0.47 * wide,
                base,
                rng.uniform(120, 180) * np.array([1, 0.95, 0.85]),
            )
        x += wide + rng.uniform(0.4, 1.1) * height


def _panels(pen: ImageDraw.ImageDraw, rng: np.random.Generator, height: int, columns: int, base: int) -> None:
    for x in np.arange(0, columns, 0.8 * height):
        _box(pen, x, 0, x + max(height // 60, 1), base, (112, 112, 110))
        if rng.random() < 0.4:
            left = x + 0.15 * height
            for stroke in range(6):
                at = left + stroke * 0.08 * height
                box = (at, base - 0.7 * height, at + 0.16 * height, base - 0.3 * height)
                start, end = sorted(rng.uniform(0, 360, 2).tolist())
                paint = tuple(rng.integers(20, 220, 3).tolist())
                pen.arc(box, start, end, fill=paint, width=max(height // 40, 1))
    for y in (0.45, 0.95, 1.45):
        _box(pen, 0, base - y * height, columns, base - y * height + max(height // 64, 1), (120, 120, 118))


BACKDROPS = {"brick": _windows, "park": _trees, "road": _cars, "shops": _shops, "hall": _signs, "concrete": _panels}
