"""What all pictures have in common: an opaque white page, which reads in print and on a dark page, and its colours."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.typing import ColorType

RIGHT, WRONG = "#2e8b57", "#c0392b"
RESOLUTION = 150  # dots per inch


def page(width: float, height: float) -> Figure:
    """An empty picture of so many inches; at 9 inches, text of 8 points is as large as that of the page around it."""
    return Figure(figsize=(width, height), facecolor="white", layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write a picture in the format that the name ends in; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=RESOLUTION)


def color_of(number: int) -> ColorType:
    """One of ten colours that can be told apart; they repeat."""
    return matplotlib.colormaps["tab10"](number % 10)


def even_steps(total: int, count: int) -> list[int]:
    """`count` of the places 0 to `total` - 1, evenly spaced from the first to the last; all where there are fewer."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
