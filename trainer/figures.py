"""Pictures of results: ranked grids, training curves, attention maps and similarity curves.

    python -m descry.trainer.figures CHECKPOINT [--attention PNG] [--similarity PNG] [--compare CHECKPOINT …]
        [--split test] [--photos 4] [--attributes hat=yes,backpack=yes] [--block 0] [--data.root=DIR]

`--attention` shows where the attribute tokens of a Multi-task Transformer look; `--similarity` how the cosines of a
method, and of those of `--compare`, follow what descriptions share.
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from descry.trainer.checkpoint import CheckpointError
from descry.trainer.config import ConfigError
from descry.trainer.datasets import DatasetError
from descry.trainer.methods import MultiTask
from descry.trainer.schema import UNKNOWN, SchemaError
from descry.trainer.similarity import SimilarityCurve, similarity_curves
from descry.trainer.subject import Extractor, add_subject_flags, load_subject
from descry.trainer.transforms import CropDataset

matplotlib.use("Agg")

NOTE_WIDTH = 26  # characters
DIVERGING = "RdYlBu_r"
ATTRIBUTES = 7  # of an attention figure, where none are named
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


@dataclass(frozen=True)
class AttentionRow:
    """One photo of an attention figure.

    Attributes:
        photo: uint8 [3, H, W].
        maps: float [A, h, w], share of each attribute token's attention on each patch of the photo.
        scores: float [A] in 0..1.
        labels: uint8 [A]; 255 = unknown.
    """

    photo: Tensor
    maps: Tensor
    scores: Tensor
    labels: Tensor


def draw_attention(rows: Sequence[AttentionRow], attributes: Sequence[str], path: Path) -> None:
    """One line a photo, one column an attribute: its token's attention over the photo, its score, right or wrong.

    The maps are upsampled bilinearly and coloured against an even spread over the photo on one fixed scale, so that
    attention that tells nothing looks pale, and figures can be compared.
    """
    columns = len(attributes) + 1
    figure = Figure(figsize=(columns + 1.1, 2.25 * len(rows) + 0.3), facecolor="white", layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    scale = LogNorm(1 / 3, 3)
    for row, line in zip(rows, axes, strict=True):
        photo = row.photo.permute(1, 2, 0).numpy()
        size = photo.shape[:2]
        line[0].imshow(photo)
        line[0].set_xlabel("score, label", fontsize=7)
        for axis in line:
            axis.set(xticks=[], yticks=[], frame_on=False)
        maps = row.maps / row.maps.mean(dim=(1, 2), keepdim=True)
        enlarged = F.interpolate(maps[None].float(), size=size, mode="bilinear", align_corners=False)[0]
        for axis, values, score, label in zip(line[1:], enlarged, row.scores, row.labels, strict=True):
            axis.imshow(photo.mean(axis=2), cmap="gray")
            axis.imshow(values.numpy(), cmap=DIVERGING, norm=scale, alpha=0.5)
            _name_score(axis, float(score), int(label))
    for axis, name in zip(axes[0][1:], attributes, strict=True):
        axis.set_title(textwrap.fill(name.replace("=yes", "").replace("=", " ").replace("_", " "), 12), fontsize=8)
    colors = ScalarMappable(scale, DIVERGING)
    bar = figure.colorbar(
        colors, ax=axes, shrink=0.6, aspect=30, extend="both", label="attention, times an even spread"
    )
    bar.set_ticks([1 / 3, 1 / 2, 1, 2, 3], labels=["1/3", "1/2", "1", "2", "3"])
    bar.ax.minorticks_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _name_score(axis: Axes, score: float, label: int) -> None:
    known = label != UNKNOWN
    right = known and (score > 0.5) == bool(label)
    text = "unknown" if not known else "yes" if label else "no"
    axis.set_xlabel(f"{score:.2f}, {text}", fontsize=7, color="black" if not known else RIGHT if right else WRONG)


def draw_similarity(curves: dict[str, tuple[SimilarityCurve, SimilarityCurve]], path: Path) -> None:
    """Mean cosine and its standard deviation by the number of differing attribute groups, one colour a method.

    Left between two descriptions, right between a description and an image; see `similarity_curves`. Grey bars are
    shares of the pairs of the first method.
    """
    figure = Figure(figsize=(9, 3.4), facecolor="white", layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for name, pair in curves.items():
        for axis, curve in zip(axes, pair, strict=True):
            (line,) = axis.plot(curve.differing, curve.mean, marker=".", label=name)
            low, high = curve.mean - curve.deviation, curve.mean + curve.deviation
            axis.fill_between(curve.differing, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    for axis, title in zip(axes, ("two descriptions", "a description and an image"), strict=True):
        axis.set(title=title, xlabel="attribute groups that differ")
        axis.grid(alpha=0.3)
    for axis, curve in zip(axes, next(iter(curves.values())), strict=True):
        _draw_shares(axis, curve)
    axes[0].set_ylabel("cosine, mean ± standard deviation")
    axes[1].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_shares(axis: Axes, curve: SimilarityCurve) -> None:
    bars = axis.twinx()
    bars.bar(curve.differing, curve.pairs, color="0.88", width=0.7)
    bars.set(yticks=[], ylim=(0, 5 * float(curve.pairs.max())))
    axis.set_zorder(bars.get_zorder() + 1)
    axis.patch.set_visible(False)
    axis.set_xticks(curve.differing.tolist())


@torch.inference_mode()
def attention_rows(
    method: MultiTask, crops: CropDataset, count: int, elements: Sequence[str] = (), block: int = 0
) -> tuple[list[AttentionRow], list[str]]:
    """Rows of an attention figure of `count` crops, evenly spaced, and the names of its columns.

    Args:
        method: in evaluation mode.
        crops: not augmented.
        count: photos.
        elements: attributes as `group=value`; empty = the rarest that the photos have.
        block: of the transformer, from 0.

    Raises:
        SchemaError: no such attribute.
        ValueError: no such block.
    """
    chosen = [crops[index] for index in np.linspace(0, len(crops) - 1, count).round().astype(int)]
    images, labels = (torch.stack([crop[key] for crop in chosen]) for key in ("image", "attributes"))
    names = method.schema.elements
    for name in elements:
        if name not in names:
            raise SchemaError(f"{name!r} is no attribute of {method.schema.name}; valid: {', '.join(names)}")
    frequency = (crops.persons.attributes == 1).mean(axis=0)
    shown = [names.index(name) for name in elements] or sorted(
        np.flatnonzero((labels == 1).any(dim=0).numpy()), key=lambda index: frequency[index]
    )[:ATTRIBUTES]
    device = next(method.parameters()).device
    maps = method.attribute_attention(images.to(device), block)[:, shown].cpu()
    scores = method.attribute_scores(method.encode_image(images.to(device))[1])[:, shown].cpu()
    rows = [AttentionRow(*values) for values in zip(images, maps, scores, labels[:, shown], strict=True)]
    return rows, [names[index] for index in shown]


def write_figures(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Draw what the command line asks for.

    Raises:
        CheckpointError: a checkpoint cannot be used, or has no attribute tokens.
        ValueError: an attribute or a block is not there.
    """
    if options.attention:
        subject = load_subject(options.checkpoint, options.split, overrides, options.cache)
        if not isinstance(subject.checkpoint.method, MultiTask):
            raise CheckpointError(f"{options.checkpoint} has no attribute tokens; --attention is for method multitask")
        elements = options.attributes.split(",") if options.attributes else ()
        crops = CropDataset(subject.persons, subject.config.image, cache=subject.config.data.cache)
        rows, names = attention_rows(subject.checkpoint.method, crops, options.photos, elements, options.block)
        draw_attention(rows, names, options.attention)
    if options.similarity:
        curves = {}
        for directory in (options.checkpoint, *options.compare):
            subject = load_subject(directory, options.split, overrides, options.cache)
            gallery = Extractor(subject, options.features)(subject.persons)
            curves[directory.name] = similarity_curves(subject.checkpoint.method, gallery)
        draw_similarity(curves, options.similarity)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    parser = argparse.ArgumentParser(
        description="Draw what a checkpoint learnt.", epilog="--section.key=value as in training"
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--attention", type=Path, metavar="PNG", help="attention maps of attribute tokens (multitask)")
    parser.add_argument("--similarity", type=Path, metavar="PNG", help="cosines by what descriptions share")
    parser.add_argument(
        "--compare", type=Path, nargs="+", default=[], metavar="CHECKPOINT", help="further similarity curves"
    )
    add_subject_flags(parser)
    parser.add_argument("--photos", type=int, default=4, help="lines of the attention maps")
    parser.add_argument("--attributes", default="", metavar="GROUP=VALUE,…", help="columns of the attention maps")
    parser.add_argument("--block", type=int, default=0, help="of the attention maps, from 0")
    options, overrides = parser.parse_known_args(arguments)
    if not (options.attention or options.similarity):
        parser.error("nothing to draw: give --attention, --similarity, or both")
    if options.photos < 1:
        parser.error(f"--photos is at least 1, not {options.photos}")
    try:
        write_figures(options, overrides)
    except (CheckpointError, ConfigError, DatasetError, ValueError) as error:
        print(f"figures: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
