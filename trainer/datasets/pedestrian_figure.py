"""The body of a synthetic pedestrian: what it wears (`Appearance`), how it is built (`Build`), how it stands (`Pose`).

A figure is a list of tubes in body coordinates: x to the person's left, y up from the ground, z forward; the unit is
the stature. Attributes never change what is drawn at random, so that one changed attribute changes only what shows it.
"""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

Point = tuple[float, float, float]

SKIN, HAIR, UPPER, LOWER, SHOES, HAT, BAG, STRAP, EYE, LIP = range(1, 11)
HIP_HEIGHT = 0.525


class Tube(NamedTuple):
    """A straight tube: `radii` are half-widths at equal steps from `start` to `end`; half-depth is `ratio` times it."""

    material: int
    start: Point
    end: Point
    radii: tuple[float, ...]
    ratio: float = 1.0
    flat: bool = False


@dataclass(frozen=True)
class Appearance:
    """The labelled attributes of a person, as value names of the synthetic schema."""

    gender: str
    age: str
    hair_length: str
    hair_color: str
    hat: str
    upper_color: str
    sleeves: str
    upper_pattern: str
    lower_kind: str
    lower_color: str
    boots: str
    bag: tuple[str, ...]


@dataclass(frozen=True)
class Build:
    """What tells two persons of one category apart; every number is 0..1 unless said otherwise."""

    width: float
    leg_length: float
    hair_volume: float
    hair_fall: float
    skin: float
    beard: float
    hat_kind: float
    hat_color: float
    shoes: float
    bag_color: float
    bag_size: float
    bag_side: float
    skirt_length: float
    garment: float
    pattern_scale: float
    pattern_color: float
    shades: tuple[float, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Build":
        """Draw a build; consumes the same random numbers whatever the person wears."""
        names = [field.name for field in fields(cls) if field.name != "shades"]
        numbers = dict(zip(names, rng.random(len(names)).tolist(), strict=True))
        return cls(**numbers, shades=tuple(rng.normal(size=9).clip(-2, 2).tolist()))


@dataclass(frozen=True)
class Person:
    """Somebody to draw: the attributes and the build that belong to the person."""

    appearance: Appearance
    build: Build


@dataclass(frozen=True)
class Pose:
    """One moment of a walk: `phase` in radians, `stride` 0..1, `arms` 0..1 selects what the arms do."""

    phase: float
    stride: float
    arms: float
    nod: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Pose":
        """Draw a moment of a walk."""
        phase, stride, arms, nod = rng.random(4).tolist()
        return cls(phase=2 * math.pi * phase, stride=0.25 + 0.75 * stride, arms=arms, nod=nod)


def lean_of(appearance: Appearance, build: Build) -> float:
    """Forward lean of the upper body in radians."""
    return 0.16 + 0.12 * build.width if appearance.age == "senior" else 0.03


def lean(point: Point, angle: float) -> Point:
    """Tilt `point` forward about the hips by `angle` radians."""
    x, y, z = point
    cosine, sine = math.cos(angle), math.sin(angle)
    return x, HIP_HEIGHT + (y - HIP_HEIGHT) * cosine - z * sine, (y - HIP_HEIGHT) * sine + z * cosine
