"""Search by descriptions that are not complete and right: what the commands `partial` and `mistaken` share."""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor

from descry.trainer.checkpoint import CheckpointError
from descry.trainer.confidence import confident_distances
from descry.trainer.config import ConfigError
from descry.trainer.curves import DISTANCES, Chart, Curves, Point, draw_curves, format_curves
from descry.trainer.datasets import DatasetError
from descry.trainer.extraction import Extracted
from descry.trainer.machine import keep_memory
from descry.trainer.methods import Method
from descry.trainer.metrics import BLOCK, mean_metrics, rank_metrics
from descry.trainer.neighbourhood import average_neighbours
from descry.trainer.retrieval import Fusion, fuse
from descry.trainer.schema import AttributeSchema, SchemaError
from descry.trainer.subject import Extractor, add_subject_flags, load_subject


@dataclass(frozen=True)
class Study:
    """What a command measures.

    Attributes:
        name: of the command.
        summary: one line about it.
        measure: points of (method, gallery, fusion, draws, seed, whether to show progress); what is drawn must be a
            function of gallery, training labels, draws and seed alone, so that all checkpoints get the same.
        chart: how to lay them out.
    """

    name: str
    summary: str
    measure: Callable[[Method, Extracted, Fusion, int, int, bool], tuple[Point, ...]]
    chart: Chart


def first_groups(places: Tensor, count: int, schema: AttributeSchema) -> Tensor:
    """Elements of the first `count` groups of each description: bool [Q, N].

    Args:
        places: int64 [Q, groups], the place of each group in an order of the description's own.
        count: of groups.
        schema: of the descriptions.
    """
    sizes = torch.tensor([group.size for group in schema.groups])
    return (places < count).repeat_interleave(sizes, dim=1)


def search_described(
    method: Method,
    gallery: Extracted,
    fusion: Fusion,
    attributes: Tensor,
    confidence: Tensor,
    truths: Callable[[slice], dict[str, Tensor]],
) -> dict[tuple[str, str], dict[str, float]]:
    """Search metrics by distance and truth.

    Each block of descriptions is ranked once a distance, for all truths.

    Args:
        method: encodes the descriptions.
        gallery: what it said of the G images.
        fusion: which PAR distance, and the constants of the fused one.
        attributes: uint8 [Q, N], what is stated.
        confidence: float [Q, N] in 0..1, 0 = not stated; see `confident_distances`.
        truths: by name what is relevant for a block of the descriptions, bool [B, G].
    """
    measured: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    for start in range(0, len(attributes), BLOCK):
        rows = slice(start, start + BLOCK)
        par, embedding = confident_distances(method, attributes[rows], confidence[rows], gallery, fusion.par_distance)
        relevant = truths(rows)
        distances = {"embedding": embedding, "par": par, "fused": fuse(par, embedding, fusion)}
        for distance, values in distances.items():
            order = values.argsort(dim=1, stable=True)
            for truth, right in relevant.items():
                measured[distance, truth].append(rank_metrics(right.gather(1, order)))
    return {key: mean_metrics(torch.cat(blocks)) for key, blocks in measured.items()}


def measure_checkpoint(study: Study, directory: Path, options: argparse.Namespace, overrides: Sequence[str]) -> Curves:
    """Embed the gallery of a checkpoint and measure it.

    Raises:
        CheckpointError: the checkpoint cannot be used, or the dataset has another schema.
        ConfigError: an override is wrong.
        DatasetError: the dataset cannot be used, or no image of the split has a complete description.
    """
    subject = load_subject(directory, options.split, overrides, options.cache)
    method, config = subject.checkpoint.method, subject.config
    count = len(subject.category_queries().attributes)
    embed = Extractor(subject, options.features)
    fusion, progress = Fusion(**subject.checkpoint.metrics["fusion"]), embed.accelerator.is_local_main_process
    gallery = average_neighbours(embed(subject.persons), fusion.neighbours)
    points = study.measure(method, gallery, fusion, options.draws, options.seed, progress)
    name = config.method["name"]
    return Curves(str(directory), name, options.split, count, options.draws, options.seed, points)


def run_study(study: Study, arguments: list[str] | None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    parser = argparse.ArgumentParser(
        prog=study.name, description=study.summary, epilog="--section.key=value as in training, for all checkpoints"
    )
    parser.add_argument("checkpoint", type=Path, nargs="+")
    add_subject_flags(parser)
    parser.add_argument(
        "--names", type=lambda text: text.split(","), default=[], metavar="NAME,…",
        help="of the checkpoints in the figure, instead of their methods",
    )  # fmt: skip
    parser.add_argument(
        "--distances", nargs="+", choices=tuple(DISTANCES), default=tuple(DISTANCES), help="in the figure; else all"
    )
    parser.add_argument("--draws", type=int, default=3, help="times that groups are drawn for each description")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw the curves")
    options, overrides = parser.parse_known_args(arguments)
    if options.draws < 1:
        parser.error(f"--draws is at least 1, not {options.draws}")
    if options.names and len(options.names) != len(options.checkpoint):
        parser.error(f"{len(options.names)} --names for {len(options.checkpoint)} checkpoints")
    keep_memory()
    try:
        results = [measure_checkpoint(study, directory, options, overrides) for directory in options.checkpoint]
    except (CheckpointError, ConfigError, DatasetError, SchemaError) as error:
        print(f"{study.name}: {error}", file=sys.stderr)
        return 1
    if not PartialState().is_main_process:
        return 0
    if options.figure:
        draw_curves(results, study.chart.showing(options.distances), options.figure, options.names)
    content = [asdict(result) for result in results]
    tables = (format_curves(result, study.chart) for result in results)
    print(json.dumps(content, indent=2) if options.json else "\n\n".join(tables))
    return 0
