"""Pictures of results: ranked grids and training curves."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

matplotlib.use("Agg")

NOTE_WIDTH = 26  # characters
RIGHT, WRONG = "#2e8b57", "#c0392b"


@dataclass(frozen=True)
class RankedRow:
    """One query of a ranked grid.

    Attributes:
        title: the description.
        images: the crops, best first.
        relevant: whether each crop shows the category asked for.
        notes: a line under each crop, e.g. what differs.
    """

    title: str
    images: Sequence[Image.Image]
    relevant: Sequence[bool]
    notes: Sequence[str]


def draw_ranked_grid(rows: Sequence[RankedRow], path: Path) -> None:
    """One line a query, hits from left to right, framed green where right and red where wrong (ASMR, Fig. 5-7)."""
    columns = max(len(row.images) for row in rows)
    figure = Figure(figsize=(1.35 * columns, 3.35 * len(rows)), facecolor="white", layout="constrained")
    panels = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for panel, row in zip(panels, rows, strict=True):
        panel.suptitle(row.title, fontsize=9, x=0.01, ha="left")
        axes = panel.subplots(1, columns, squeeze=False)[0]
        for position, axis in enumerate(axes):
            axis.set_axis_off()
            if position < len(row.images):
                _draw_hit(axis, position + 1, row, position)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def _draw_hit(axis: Axes, rank: int, row: RankedRow, position: int) -> None:
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    axis.imshow(row.images[position].resize((128, 256)))
    for spine in axis.spines.values():
        spine.set(edgecolor=RIGHT if row.relevant[position] else WRONG, linewidth=3)
    axis.set_xlabel(textwrap.fill(f"{rank}. {row.notes[position]}", NOTE_WIDTH), fontsize=6)


def draw_training_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Losses per logged step and validation metrics per epoch, from `history.jsonl`."""
    figure = Figure(figsize=(9, 3.2), facecolor="white", layout="constrained")
    losses, metrics = figure.subplots(1, 2)
    steps = [entry for entry in history if "loss" in entry]
    for name in dict.fromkeys(key for entry in steps for key in entry):
        if name in ("loss", "total", "stage", "epoch"):
            continue
        points = [(entry["total"], entry[name]) for entry in steps if name in entry]
        losses.plot(*zip(*points, strict=True), label=name.replace("_", " "), linewidth=1)
    losses.set(title="training losses", xlabel="step")
    epochs = [entry for entry in history if entry.get("metrics")]
    for name, label in (("rank1", "rank-1"), ("mAP", "mAP"), ("mA", "mA (PAR)")):
        points = [(entry["total"], 100 * entry["metrics"][name]) for entry in epochs]
        if points:
            metrics.plot(*zip(*points, strict=True), marker=".", label=label)
    metrics.set(title="validation, %", xlabel="step")
    for axis in (losses, metrics):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
