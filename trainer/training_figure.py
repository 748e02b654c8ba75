"""Picture of a training run from its history: losses, and what the validation split says, by epoch (ASMR, Figure 3)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from descry.trainer.drawing import page, save
from descry.trainer.record import epoch_means

VALIDATION = {"rank1": "rank-1", "mAP": "mAP", "mA": "mA (PAR)"}
NO_LOSS = ("loss", "stage", "epoch")


def draw_training_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Mean losses, and validation metrics where there are some, over the epochs of all stages, counted through."""
    epochs = list(dict.fromkeys((entry["stage"], entry["epoch"]) for entry in history))
    losses = epoch_means(history)
    names = dict.fromkeys(name for entry in losses for name in entry if name not in NO_LOSS)
    validated = [{**entry, **entry["metrics"]} for entry in history if entry.get("metrics")]
    panels: dict[str, tuple[Sequence[dict[str, Any]], dict[str, str], float]] = {
        "training losses, mean of an epoch": (losses, {name: name.replace("_", " ") for name in names}, 1)
    }
    if validated:
        panels["validation, %"] = (validated, VALIDATION, 100)
    figure = page(4.5 * len(panels), 3.6)
    for axis, (title, (entries, labels, scale)) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for name, label in labels.items():
            points = {
                epochs.index((entry["stage"], entry["epoch"])) + 1: scale * entry[name]
                for entry in entries
                if name in entry
            }
            axis.plot(list(points), list(points.values()), marker=".", linewidth=1, label=label)
        axis.set(title=title, xlabel=_name_epochs(epochs))
        _finish(axis)
    save(figure, path)


def _name_epochs(epochs: Sequence[tuple[str, int]]) -> str:
    stages = [stage for stage, _ in epochs]
    ends = {stage: len(stages) - stages[::-1].index(stage) for stage in dict.fromkeys(stages)}
    return "epoch (" + ", ".join(f"{stage} to {end}" for stage, end in ends.items()) + ")"


def _finish(axis: Axes) -> None:
    axis.grid(alpha=0.3)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
