"""Draws tubes into depth, normal and material buffers, then colours and lights every covered pixel at once."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from descry.trainer.datasets.pedestrian_figure import Point, Tube

FAR = -1e4
PROFILE_STEPS = np.linspace(0, 1, 64)


@dataclass(frozen=True)
class Projection:
    """Orthographic view of the body: `yaw` 0 faces the viewer, positive turns to screen right; `pitch` looks down.

    Attributes:
        yaw: radians.
        pitch: radians.
        scale: pixels a stature.
        ground: screen x and y of the body's origin, in pixels.
    """

    yaw: float
    pitch: float
    scale: float
    ground: tuple[float, float]

    def forward(self, point: Point) -> Point:
        """Body coordinates to screen x, screen y (down) and nearness, all in pixels."""
        x, y, z = point
        across = x * math.cos(self.yaw) + z * math.sin(self.yaw)
        near = z * math.cos(self.yaw) - x * math.sin(self.yaw)
        up = y * math.cos(self.pitch) - near * math.sin(self.pitch)
        near = y * math.sin(self.pitch) + near * math.cos(self.pitch)
        return self.ground[0] + self.scale * across, self.ground[1] - self.scale * up, self.scale * near

    def backward(
        self, column: np.ndarray, row: np.ndarray, near: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Screen coordinates, float32 [P] each, to body coordinates x, y, z."""
        across, up, near = (
            (column - self.ground[0]) / self.scale,
            (self.ground[1] - row) / self.scale,
            near / self.scale,
        )
        y = up * math.cos(self.pitch) + near * math.sin(self.pitch)
        level = near * math.cos(self.pitch) - up * math.sin(self.pitch)
        x = across * math.cos(self.yaw) - level * math.sin(self.yaw)
        return x, y, across * math.sin(self.yaw) + level * math.cos(self.yaw)


class Buffers:
    """Nearness, normal and material of each pixel, [H, W]; material 0 is empty."""

    def __init__(self, height: int, width: int) -> None:
        """Make empty buffers of `height` x `width` pixels."""
        self.near = np.full((height, width), FAR, np.float32)
        self.normal_x = np.zeros((height, width), np.float32)
        self.normal_y = np.zeros((height, width), np.float32)
        self.material = np.zeros((height, width), np.uint8)
        self._columns = np.arange(width, dtype=np.float32) + 0.5
        self._rows = (np.arange(height, dtype=np.float32) + 0.5)[:, None]

    def draw(self, tubes: Iterable[Tube], view: Projection) -> None:
        """Draw `tubes`, nearest first wins."""
        for tube in tubes:
            self._draw_tube(tube, view)

    def _draw_tube(self, tube: Tube, view: Projection) -> None:
        (x0, y0, z0), (x1, y1, z1) = view.forward(tube.start), view.forward(tube.end)
        cosine, sine = math.cos(view.yaw), math.sin(view.yaw)
        # The cross-section is an ellipse turned by the yaw: its width, its depth, and the tilt of its front.
        spread = cosine * cosine + (tube.ratio * sine) ** 2
        depth, tilt = tube.ratio / spread, (tube.ratio**2 - 1) * sine * cosine / spread
        unit = view.scale * math.sqrt(spread)
        reach = unit * max(tube.radii)
        height, width = self.near.shape
        left, right = max(int(min(x0, x1) - reach), 0), min(int(max(x0, x1) + reach) + 2, width)
        top, bottom = max(int(min(y0, y1) - reach), 0), min(int(max(y0, y1) + reach) + 2, height)
        if left >= right or top >= bottom:
            return
        window = (slice(top, bottom), slice(left, right))
        across, down = self._columns[left:right] - x0, self._rows[top:bottom] - y0
        vx, vy = x1 - x0, y1 - y0
        length = vx * vx + vy * vy + 1e-3
        along = across * (vx / length) + down * (vy / length)
        share = np.clip(along, 0, 1)
        radius = _radius(share, tube.radii, unit)
        off = across - vx * share
        normal_x = off / radius
        normal_y = (down - vy * share) / radius
        front = 1 - normal_x * normal_x - normal_y * normal_y
        inside = front > 0
        if tube.flat:
            inside &= along == share
        near = z0 + (z1 - z0) * share + depth * radius * np.sqrt(np.maximum(front, 0)) + tilt * off
        inside &= near > self.near[window]
        np.copyto(self.near[window], near, where=inside)
        np.copyto(self.normal_x[window], normal_x, where=inside)
        np.copyto(self.normal_y[window], normal_y, where=inside)
        self.material[window][inside] = tube.material

    def paint(
        self,
        palette: np.ndarray,
        light: Sequence[float],
        folds: np.ndarray,
        view: Projection,
        decorate: Callable[[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]], None],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Colour and light the covered pixels.

        Args:
            palette: float32 [materials, 3], 0..255.
            light: direction to the light: right, down, to the viewer; unit length.
            folds: brightness factors of creases in cloth, float32 [H, W].
            view: the projection that drew the tubes.
            decorate: called with colours [P, 3] (changed in place), materials [P] and body coordinates of the P pixels.

        Returns:
            Colours, float32 [H, W, 3], 0 where empty, and coverage, float32 [H, W], 0 or 1.
        """
        covered = np.flatnonzero(self.material)
        material, near = self.material.ravel()[covered], self.near.ravel()[covered]
        normal_x, normal_y = self.normal_x.ravel()[covered], self.normal_y.ravel()[covered]
        rows, columns = np.divmod(covered, self.near.shape[1])
        colors = palette[material]
        decorate(colors, material, view.backward(columns.astype(np.float32), rows.astype(np.float32), near))
        normal_z = np.sqrt(np.maximum(1 - normal_x * normal_x - normal_y * normal_y, 0))
        facing = np.maximum(normal_x * light[0] + normal_y * light[1] + normal_z * light[2], 0)
        shade = (0.46 + 0.62 * facing) * folds.ravel()[covered]
        shade *= 1 - np.clip((self._surroundings().ravel()[covered] - near) * (5.5 / view.scale), 0, 0.45)
        image = np.zeros((*self.near.shape, 3), np.float32)
        image.reshape(-1, 3)[covered] = np.minimum(colors * shade[:, None], 255)
        return image, (self.material > 0).astype(np.float32)

    def _surroundings(self) -> np.ndarray:
        """Mean nearness around each pixel: a surface behind its surroundings lies in a crease and gets less light."""
        height, width = self.near.shape
        floor = self.near[self.near > FAR].min() if (self.near > FAR).any() else 0.0
        image = Image.fromarray(np.maximum(self.near, floor))
        coarse = image.resize((width // 8, height // 8), Image.Resampling.BOX)
        return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))


def _radius(share: np.ndarray, radii: tuple[float, ...], unit: float) -> np.ndarray:
    if len(radii) == 2:
        return unit * radii[0] + (unit * (radii[1] - radii[0])) * share
    table = (unit * np.interp(PROFILE_STEPS, np.linspace(0, 1, len(radii)), radii)).astype(np.float32)
    return table[(share * (len(PROFILE_STEPS) - 1)).astype(np.intp)]
