"""Renders crops of synthetic pedestrians: a lit figure in a camera's scene, as that camera would record it."""

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from descry.trainer.datasets.pedestrian_body import build_figure
from descry.trainer.datasets.pedestrian_clothes import decorate, folds, palette
from descry.trainer.datasets.pedestrian_figure import Person, Pose, lean_of
from descry.trainer.datasets.pedestrian_raster import Buffers, Projection
from descry.trainer.datasets.pedestrian_scene import Camera, still

SUPERSAMPLING = 2


@dataclass(frozen=True)
class Framing:
    """How one crop shows the person.

    Attributes:
        yaw: radians; 0 faces the camera.
        scale: stature as a share of the crop's height.
        shift: of the middle, as a share of the crop's width.
        ground: of the feet, as a share of the crop's height.
        window: where in the camera's still, 0..1 across and down.
        occlusion: 0..1; selects what is in the way.
        extra: 0..1 each; places what is in the way and the gradient of the light.
    """

    yaw: float
    scale: float
    shift: float
    ground: float
    window: tuple[float, float]
    occlusion: float
    extra: tuple[float, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator, camera: Camera) -> "Framing":
        """Draw a framing; a person walks along the camera's direction, against it, or across."""
        turn = float(rng.choice([0.0, math.pi, math.pi / 2, -math.pi / 2], p=[0.42, 0.30, 0.14, 0.14]))
        cut = rng.random() < 0.08
        return cls(
            yaw=camera.yaw * 0.25 + turn + float(rng.normal(0, 0.28)),
            scale=float(rng.uniform(0.80, 0.95)) * (1.22 if cut else 1.0),
            shift=float(rng.normal(0, 0.045)),
            ground=float(rng.uniform(0.945, 0.985)) + (0.19 if cut else 0.0),
            window=(float(rng.random()), float(rng.random())),
            occlusion=float(rng.random()),
            extra=tuple(rng.random(6).tolist()),
        )


def render(
    person: Person, passer: Person, camera: Camera, rng: np.random.Generator, size: tuple[int, int] = (128, 64)
) -> np.ndarray:
    """Render one crop.

    Args:
        person: who the crop is of.
        passer: who may pass in front or behind.
        camera: who records it.
        rng: everything that varies from image to image.
        size: height and width in pixels.

    Returns:
        RGB, uint8 [H, W, 3].
    """
    pose, framing = Pose.draw(rng), Framing.draw(rng, camera)
    passing_pose, passing_framing = Pose.draw(rng), Framing.draw(rng, camera)
    height = size[0]
    scene = still(camera, height)
    left = int(framing.window[0] * (scene.shape[1] - size[1]))
    top = int(1.5 * height + 0.1 * height * framing.window[1] - framing.ground * height)
    image = scene[top : top + height, left : left + size[1]].astype(np.float32)
    aside = (0.34 + 0.22 * framing.extra[0]) * (1 if framing.extra[1] > 0.5 else -1)
    passing = _moved(passing_framing, framing, aside)
    if 0.10 < framing.occlusion < 0.26:
        _add_figure(image, passer, passing_pose, passing, camera, rng)
    _add_figure(image, person, pose, framing, camera, rng)
    if framing.occlusion < 0.10:
        _add_figure(image, passer, passing_pose, passing, camera, rng)
    elif 0.26 < framing.occlusion < 0.34:
        _add_pole(image, framing)
    elif 0.34 < framing.occlusion < 0.40:
        _add_barrier(image, framing)
    return _record(image, camera, framing, rng)


def _moved(passing: Framing, framing: Framing, aside: float) -> Framing:
    """The passer's framing: beside the person, a little farther when behind, a little nearer when in front."""
    nearer = framing.occlusion < 0.10
    return replace(
        passing,
        scale=framing.scale * (1.06 if nearer else 0.86),
        shift=framing.shift + aside * (1.25 if nearer else 1.0),
        ground=framing.ground + (0.05 if nearer else -0.07),
    )


def _add_figure(
    image: np.ndarray, person: Person, pose: Pose, framing: Framing, camera: Camera, rng: np.random.Generator
) -> None:
    """Draw a person and the shadow into `image`, float32 [H, W, 3]."""
    height, width = image.shape[:2]
    fine = SUPERSAMPLING
    middle, foot = (0.5 + framing.shift) * width, framing.ground * height
    child = 0.93 if person.appearance.age == "child" else 1.0
    view = Projection(framing.yaw, camera.pitch, framing.scale * child * height * fine, (middle * fine, foot * fine))
    buffers = Buffers(height * fine, width * fine)
    buffers.draw(build_figure(person.appearance, person.build, pose), view)
    creases = folds(height * fine, width * fine, int(rng.integers(2**20)))
    lean = lean_of(person.appearance, person.build)
    colors, coverage = buffers.paint(
        palette(person), camera.light, creases, view, lambda *pixels: decorate(person, lean, *pixels)
    )
    colors, coverage = _reduced(colors), _reduced(coverage)
    _cast_shadow(image, coverage, (middle, foot), framing.scale, camera)
    image *= (1 - coverage)[..., None]
    image += colors


def _reduced(pixels: np.ndarray) -> np.ndarray:
    """Mean over squares of `SUPERSAMPLING` pixels."""
    fine = SUPERSAMPLING
    total = pixels[::fine, ::fine].copy()
    for row, column in list(np.ndindex(fine, fine))[1:]:
        total += pixels[row::fine, column::fine]
    return total / fine**2


def _cast_shadow(
    image: np.ndarray, coverage: np.ndarray, foot: tuple[float, float], scale: float, camera: Camera
) -> None:
    """Darken the ground where the figure keeps the light off, and around the feet."""
    height, width = coverage.shape
    flat = 0.16 + camera.pitch * 0.5
    slant = -camera.light[0] / max(-camera.light[1], 0.3) * 0.9
    mask = Image.fromarray((coverage * 255).astype(np.uint8))
    # The shadow is the figure itself, squeezed to the ground and slanted away from the light.
    shear = (1, slant / flat, -slant / flat * foot[1], 0, 1 / flat, foot[1] * (1 - 1 / flat))
    shadow = mask.transform((width, height), Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR)
    shadow = shadow.filter(ImageFilter.GaussianBlur(height / 80))
    rows, columns = np.ogrid[0:height, 0:width]
    across, down = (columns - foot[0]) / (0.17 * scale * height), (rows - foot[1] + 0.01 * height) / (0.035 * height)
    pool = np.exp(-(across**2 + down**2), dtype=np.float32)
    darkness = camera.shadow * np.asarray(shadow, np.float32) / 255 + 0.45 * pool
    image *= np.maximum(1 - darkness, 0.25)[..., None]


def _add_pole(image: np.ndarray, framing: Framing) -> None:
    height, width = image.shape[:2]
    thick = max(int((0.07 + 0.10 * framing.extra[0]) * width), 2)
    left = int((0.15 + 0.6 * framing.extra[1]) * width)
    round_shade = np.sqrt(np.maximum(1 - np.linspace(-0.9, 0.95, thick) ** 2, 0)) * 0.7 + 0.3
    tone = np.array([(96, 98, 100), (62, 78, 66), (150, 150, 146)][int(framing.extra[2] * 3)])
    image[:, left : left + thick] = (round_shade[:, None] * tone)[: image[:, left : left + thick].shape[1]]


def _add_barrier(image: np.ndarray, framing: Framing) -> None:
    height = image.shape[0]
    top = int((0.66 + 0.2 * framing.extra[0]) * height)
    tone = np.array([(150, 146, 140), (70, 96, 52), (120, 44, 40), (86, 88, 94)][int(framing.extra[2] * 4)])
    image[top:] = tone * np.linspace(1.05, 0.75, height - top)[:, None, None]
    image[top : top + max(height // 60, 1)] *= 1.25


def _record(image: np.ndarray, camera: Camera, framing: Framing, rng: np.random.Generator) -> np.ndarray:
    """What the camera makes of the scene: light gradient, colour cast, contrast, blur and noise; uint8 [H, W, 3]."""
    height, width = image.shape[:2]
    slope = np.linspace(-1, 1, width, dtype=np.float32)[None] * (framing.extra[3] - 0.5)
    slope = slope + np.linspace(-1, 1, height, dtype=np.float32)[:, None] * (framing.extra[4] - 0.5)
    exposure = camera.brightness * (0.9 + 0.2 * framing.extra[5]) * (1 + 0.36 * slope)
    image = image * exposure[..., None] * np.array(camera.gain, np.float32)
    image = (image - 118) * camera.contrast + 118
    blur = camera.blur * height / 128
    if blur:
        soft = Image.fromarray(image.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur))
        image = np.asarray(soft, np.float32)
    image = image + rng.standard_normal(image.shape, np.float32) * camera.noise
    return image.clip(0, 255).astype(np.uint8)
