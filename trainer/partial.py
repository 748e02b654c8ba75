"""Search by part of a description: how well it works as more and more attribute groups are stated.

    python -m descry.trainer.partial CHECKPOINT … [--split test] [--draws 3] [--seed 0] [--json] [--figure PNG]

Every complete category of the gallery states k random attribute groups, for k = 1 up to all; the rest is unknown. In
one draw a description keeps what it has stated while k grows. All images count, and the fused distance is the
checkpoint's, as a server computes it. Several checkpoints get the same descriptions, where they have the same dataset.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

import torch
from accelerate import PartialState
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor
from tqdm import tqdm

from descry.trainer.checkpoint import CheckpointError
from descry.trainer.config import ConfigError
from descry.trainer.datasets import DatasetError
from descry.trainer.extraction import Extracted, description_distances
from descry.trainer.machine import keep_memory
from descry.trainer.methods import Method
from descry.trainer.metrics import BLOCK, mean_metrics, rank_metrics
from descry.trainer.protocols import Queries, category_queries
from descry.trainer.retrieval import Fusion, fuse
from descry.trainer.schema import AttributeSchema, SchemaError
from descry.trainer.subject import Extractor, add_subject_flags, load_subject

# What counts as found, and how a figure names it.
TRUTHS = {"agreeing": "images that fit what is stated", "category": "images of the full description"}
# Distances, and the line styles of a figure.
LineStyle = Literal["--", ":", "-"]
DISTANCES: dict[str, LineStyle] = {"embedding": "--", "par": ":", "fused": "-"}


@dataclass(frozen=True)
class PartialPoint:
    """One point of a curve.

    Attributes:
        stated: attribute groups that the descriptions state.
        distance: `embedding`, `par` or `fused`.
        truth: what is relevant: `agreeing`, every image whose labels are all that is stated (an unknown label is not),
            or `category`, the images of the full description.
        mAP, rank1: in 0..1, over all descriptions, the mean over the draws; `mAP` by the rectangle rule.
        mAP_deviation, rank1_deviation: standard deviation over the draws; 0 for one draw.
    """

    stated: int
    distance: str
    truth: str
    mAP: float
    mAP_deviation: float
    rank1: float
    rank1_deviation: float


@dataclass(frozen=True)
class PartialCurves:
    """What a checkpoint makes of partial descriptions.

    Attributes:
        checkpoint: its folder.
        method: its name.
        split: of the gallery.
        descriptions: how many there are.
        draws: how many times groups were drawn for each.
        seed: of the draws.
        points: for every number of groups, distance and truth.
    """

    checkpoint: str
    method: str
    split: str
    descriptions: int
    draws: int
    seed: int
    points: tuple[PartialPoint, ...]


def known_elements(places: Tensor, stated: int, schema: AttributeSchema) -> Tensor:
    """Elements of the first `stated` groups of each description: bool [Q, N].

    Args:
        places: int64 [Q, groups], the place of each group in the order in which a description states them.
        stated: how many it states.
        schema: of the descriptions.
    """
    sizes = torch.tensor([group.size for group in schema.groups])
    return (places < stated).repeat_interleave(sizes, dim=1)


def agreeing_images(attributes: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """Whether the labels uint8 [G, N] of each image are all that each description [Q, N] states: bool [Q, G]."""
    ones, zeros = ((known & (attributes == value)).float() for value in (1, 0))
    contradictions = ones @ (labels != 1).float().T + zeros @ (labels != 0).float().T
    return contradictions == 0


def search_partially(
    method: Method, gallery: Extracted, queries: Queries, known: Tensor, fusion: Fusion
) -> dict[tuple[str, str], dict[str, float]]:
    """Search metrics by distance and truth of descriptions of which only `known`, bool [Q, N], is stated.

    Each block of queries is ranked once a distance, for both truths.
    """
    measured: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    for start in range(0, len(known), BLOCK):
        rows = slice(start, start + BLOCK)
        attributes, stated = queries.attributes[rows], known[rows]
        par, embedding = description_distances(method, attributes, stated, gallery)
        agreeing = agreeing_images(attributes, stated, gallery.attributes)
        truths = {"agreeing": agreeing, "category": queries.relevant[rows]}
        distances = {"embedding": embedding, "par": par, "fused": fuse(par, embedding, fusion)}
        for distance, values in distances.items():
            order = values.argsort(dim=1, stable=True)
            for truth, relevant in truths.items():
                measured[distance, truth].append(rank_metrics(relevant.gather(1, order)))
    return {key: mean_metrics(torch.cat(blocks)) for key, blocks in measured.items()}


def measure_partial(
    method: Method, gallery: Extracted, fusion: Fusion, draws: int, seed: int, progress: bool = False
) -> tuple[PartialPoint, ...]:
    """The points of a method's curves; the descriptions are a function of gallery, `draws` and `seed` alone."""
    queries = category_queries(gallery.crops, method.labels.categories)
    groups = len(method.schema.groups)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.rand(len(queries.attributes), groups, generator=generator).argsort(dim=1) for _ in range(draws)]
    found: dict[tuple[int, str, str], list[dict[str, float]]] = defaultdict(list)
    steps = [(stated, places) for stated in range(1, groups + 1) for places in orders]
    for stated, places in tqdm(steps, desc="partial descriptions", disable=not progress, leave=False):
        known = known_elements(places, stated, method.schema)
        for (distance, truth), metrics in search_partially(method, gallery, queries, known, fusion).items():
            found[stated, distance, truth].append(metrics)
    return tuple(
        PartialPoint(*key, *_spread([one["mAP"] for one in metrics]), *_spread([one["rank1"] for one in metrics]))
        for key, metrics in found.items()
    )


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def format_curves(curves: PartialCurves) -> str:
    """The curves of a checkpoint as aligned text, in percent: one row a number of stated groups and truth."""
    points = {(point.stated, point.truth, point.distance): point for point in curves.points}
    lines = [
        f"{curves.checkpoint} ({curves.method}): {curves.descriptions} descriptions, {curves.draws} draws; "
        "mAP / rank-1, mean ± standard deviation over the draws",
        f"{'stated':>6}  {'relevant':<10}" + "".join(f"{distance:>26}" for distance in DISTANCES),
    ]
    for stated in sorted({point.stated for point in curves.points}):
        for truth in TRUTHS:
            cells = "".join(f"{_format_point(points[stated, truth, distance]):>26}" for distance in DISTANCES)
            lines.append(f"{stated:>6}  {truth:<10}{cells}")
    return "\n".join(lines)


def _format_point(point: PartialPoint) -> str:
    pairs = ((point.mAP, point.mAP_deviation), (point.rank1, point.rank1_deviation))
    return " / ".join(f"{100 * center:.1f} ± {100 * spread:.1f}" for center, spread in pairs)


def draw_curves(results: Sequence[PartialCurves], path: Path) -> None:
    """Draw mAP and rank-1 by the number of stated groups: one colour a checkpoint, one line style a distance."""
    figure = Figure(figsize=(9, 6), facecolor="white", layout="constrained")
    axes = figure.subplots(2, len(TRUTHS), sharex=True)
    names = [result.method for result in results]
    handles = [Line2D([], [], color="black", linestyle=style, label=name) for name, style in DISTANCES.items()]
    for number, result in enumerate(results):
        unique = names.count(result.method) == 1
        label = result.method if unique else f"{result.method}, {Path(result.checkpoint).name}"
        handles.append(Line2D([], [], color=f"C{number}", label=label))
        for metric, line in zip(("mAP", "rank1"), axes, strict=True):
            for truth, axis in zip(TRUTHS, line, strict=True):
                _draw_lines(axis, [point for point in result.points if point.truth == truth], metric, f"C{number}")
    for line, label in zip(axes, ("mAP, %", "rank-1, %"), strict=True):
        line[0].set_ylabel(label)
    for axis, title in zip(axes[0], TRUTHS.values(), strict=True):
        axis.set_title(title)
    for axis in axes[-1]:
        axis.set_xlabel("attribute groups stated")
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    axes[0][-1].legend(handles=handles, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_lines(axis: Axes, points: Sequence[PartialPoint], metric: str, color: str) -> None:
    for distance, style in DISTANCES.items():
        chosen = [point for point in points if point.distance == distance]
        stated = [point.stated for point in chosen]
        center = torch.tensor([100 * getattr(point, metric) for point in chosen])
        spread = torch.tensor([100 * getattr(point, f"{metric}_deviation") for point in chosen])
        axis.plot(stated, center, color=color, linestyle=style, marker=".")
        axis.fill_between(stated, center - spread, center + spread, color=color, alpha=0.15, linewidth=0)
        axis.set_xticks(stated)


def measure_checkpoint(directory: Path, options: argparse.Namespace, overrides: Sequence[str]) -> PartialCurves:
    """Embed the gallery of a checkpoint and measure it.

    Raises:
        CheckpointError: the checkpoint cannot be used, or the dataset has another schema.
        ConfigError: an override is wrong.
        DatasetError: the dataset cannot be used, or no image of the split has a complete description.
    """
    subject = load_subject(directory, options.split, overrides, options.cache)
    method, config = subject.checkpoint.method, subject.config
    count = len(category_queries(subject.persons, method.labels.categories).attributes)
    if not count:
        raise DatasetError(f"{config.data.root}: no image of {options.split} has all attributes known")
    embed = Extractor(subject, options.features)
    gallery = embed(subject.persons)
    fusion, progress = Fusion(**subject.checkpoint.metrics["fusion"]), embed.accelerator.is_local_main_process
    points = measure_partial(method, gallery, fusion, options.draws, options.seed, progress)
    name = config.method["name"]
    return PartialCurves(str(directory), name, options.split, count, options.draws, options.seed, points)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="--section.key=value as in training, for all checkpoints"
    )
    parser.add_argument("checkpoint", type=Path, nargs="+")
    add_subject_flags(parser)
    parser.add_argument("--draws", type=int, default=3, help="times that groups are drawn for each description")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw the curves")
    options, overrides = parser.parse_known_args(arguments)
    if options.draws < 1:
        parser.error(f"--draws is at least 1, not {options.draws}")
    keep_memory()
    try:
        results = [measure_checkpoint(directory, options, overrides) for directory in options.checkpoint]
    except (CheckpointError, ConfigError, DatasetError, SchemaError) as error:
        print(f"partial: {error}", file=sys.stderr)
        return 1
    if not PartialState().is_main_process:
        return 0
    if options.figure:
        draw_curves(results, options.figure)
    content = [asdict(result) for result in results]
    print(json.dumps(content, indent=2) if options.json else "\n\n".join(map(format_curves, results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
