"""Tiny synthetic datasets for the tests."""

from pathlib import Path

from descry.trainer.datasets.synthetic import generate


def render_people(root: Path, persons: int = 24, images_per_person: int = 4) -> Path:
    """A synthetic dataset folder of a hundred small crops."""
    generate(root, persons, images_per_person, size=(64, 32), workers=1, progress=False)
    return root
