"""Evaluate a checkpoint: attribute search, attribute recognition and re-identification on one split of a dataset.

    python -m descry.trainer.evaluate CHECKPOINT [--split test] [--queries categories] [--gallery-filter none] [--reid]
        [--fusion checkpoint] [--par-weights 0,0.1,0.2] [--json] [--data.root=DIR]

Protocol: every distinct complete category of the gallery is one query, or with `--queries images` every re-ID query
image's description; images of that category are relevant. All images of the gallery count (ASMR), or with
`--gallery-filter same_camera` not those of the described person by the same camera (SAL). The fused distance has the
constants that a server uses, those of the checkpoint, or with `--fusion matrix` the largest distances of this very
evaluation (Multi-task Transformer), which no server can know before it has seen all queries. docs/evaluation.md says
what each number means.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from descry.trainer.cache import DEFAULT_FOLDER
from descry.trainer.checkpoint import CheckpointError
from descry.trainer.config import ConfigError
from descry.trainer.datasets import DatasetError
from descry.trainer.extraction import Extracted, description_distances, extractor, load_split
from descry.trainer.fairness import recognition_by_value, search_by_value
from descry.trainer.machine import keep_memory
from descry.trainer.methods import Method
from descry.trainer.metrics import (
    SEARCH_METRICS,
    attribute_metrics,
    bootstrap_intervals,
    mean_metrics,
    query_metrics,
    recognition_metrics,
)
from descry.trainer.protocols import GALLERY_FILTERS, QUERY_SETS, Queries, category_queries
from descry.trainer.reid import evaluate_reid, reid_crops, reid_embeddings
from descry.trainer.retrieval import Fusion, fit_fusion, fuse
from descry.trainer.schema import UNKNOWN, SchemaError


def query_distances(method: Method, queries: Queries, gallery: Extracted) -> tuple[Tensor, Tensor]:
    """PAR and embedding distances [Q, G] of complete descriptions, before fusion; each distinct one is encoded once."""
    distinct, which = queries.attributes.unique(dim=0, return_inverse=True)
    par, embedding = description_distances(method, distinct, torch.ones_like(distinct), gallery)
    return par[which], embedding[which]


def evaluate_search(
    method: Method,
    gallery: Extracted,
    fusion: Fusion | None,
    par_weights: Sequence[float] = (),
    queries: Queries | None = None,
    sweep: Sequence[float] = (),
) -> dict[str, Any]:
    """Search metrics of the embedding, of the PAR head and of both fused, over all, seen and unseen categories.

    `intervals` has the 95 % interval of each over the queries.

    Args:
        method: encodes the descriptions.
        gallery: what it said of the gallery.
        par_weights: candidates when `fusion` is None.
        fusion: the constants; None measures them here, with the best of `par_weights`.
        queries: None = the gallery's categories, without a gallery filter.
        sweep: further PAR weights to measure the fused distance with, over all categories.
    """
    queries = queries or category_queries(gallery.crops, method.labels.categories)
    par, embedding = query_distances(method, queries, gallery)
    fusion = fusion or fit_fusion(par, embedding, queries.relevant, par_weights)
    groups = {"all": torch.ones_like(queries.seen), "seen": queries.seen, "unseen": ~queries.seen}
    table, intervals, measured_by = {}, {}, {}
    for name, distances in {"embedding": embedding, "par": par, "fused": fuse(par, embedding, fusion)}.items():
        measured = query_metrics(distances, queries.relevant, queries.ignored)
        measured_by[name] = measured
        table[name] = {which: mean_metrics(measured[rows]) for which, rows in groups.items() if rows.any()}
        intervals[name] = {which: bootstrap_intervals(measured[groups[which]]) for which in table[name]}
    swept = []
    for weight in sweep:
        distances = fuse(par, embedding, replace(fusion, par_weight=weight))
        measured = query_metrics(distances, queries.relevant, queries.ignored)
        swept.append({"par_weight": weight, **mean_metrics(measured)})
    return {
        "protocol": {"queries": queries.query_set, "gallery_filter": queries.gallery_filter},
        "search": table,
        "intervals": intervals,
        "attributes": {
            **attribute_metrics(gallery.scores, gallery.attributes, gallery.attributes != UNKNOWN),
            **recognition_metrics(gallery.scores, gallery.attributes, method.schema),
        },
        "fairness": {
            "search": search_by_value(measured_by["fused"], queries.attributes, method.schema),
            "recognition": recognition_by_value(gallery.scores, gallery.attributes, method.schema),
        },
        "fusion": asdict(fusion),
        **({"sweep": swept} if swept else {}),
    }


def format_table(result: dict[str, Any]) -> str:
    """The result as aligned text: one row a distance and set of categories, metrics in percent."""
    protocol, attributes = result["protocol"], result["attributes"]
    lines = [f"queries: {protocol['queries']}; gallery filter: {protocol['gallery_filter']}"]
    lines.append(f"{'distance':<11}{'categories':<12}{'queries':>8}" + "".join(f"{n:>15}" for n in SEARCH_METRICS))
    for distance, groups in result["search"].items():
        lines += [_format_row(distance, group, metrics) for group, metrics in groups.items()]
    lines += [_format_row("fused", f"PAR x {row['par_weight']:g}", row) for row in result.get("sweep", [])]
    if "reid" in result:
        lines.append(_format_row("embedding", "re-ID", result["reid"]))
    lines += [_format_interval(distance, groups["all"]) for distance, groups in result["intervals"].items()]
    lines += _format_gaps(result["fairness"])
    shown = {"mA": "mA", "group_accuracy": "group accuracy", "element_accuracy": "element accuracy"}
    shown |= {name: name for name in ("accuracy", "precision", "recall", "F1")}
    lines.append("PAR head: " + ", ".join(f"{label} {100 * attributes[name]:.1f}" for name, label in shown.items()))
    return "\n".join(lines)


def _format_row(distance: str, what: str, metrics: dict[str, float]) -> str:
    numbers = "".join(f"{100 * metrics[name]:>15.1f}" for name in SEARCH_METRICS)
    return f"{distance:<11}{what:<12}{metrics['queries']:>8.0f}{numbers}"


def _format_interval(distance: str, bounds: dict[str, tuple[float, float]]) -> str:
    rank1, average = (
        f"{100 * low:.1f} to {100 * high:.1f}" for low, high in (bounds[name] for name in ("rank1", "mAP"))
    )
    return f"95 % interval over the queries, {distance}: rank-1 {rank1}, mAP {average}"


def _format_gaps(fairness: dict[str, Any]) -> list[str]:
    """A line for each value of each protected group: how its people are found (fused distance) and recognized."""
    lines = []
    for name, found in fairness["search"].items():
        recognized = fairness["recognition"][name]
        for value, metrics in found["values"].items():
            low, high = metrics["intervals"]["mAP"]
            images = recognized["values"].get(value, {"images": 0, "group_accuracy": float("nan")})
            lines.append(
                f"{name} {value}: {metrics['queries']:.0f} queries, rank-1 {100 * metrics['rank1']:.1f}, mAP "
                f"{100 * metrics['mAP']:.1f} ({100 * low:.1f} to {100 * high:.1f}); {images['images']} images, group "
                f"accuracy {100 * images['group_accuracy']:.1f}"
            )
    return lines


def parse_weights(text: str) -> tuple[float, ...]:
    """PAR weights from `0,0.1,0.2`.

    Raises:
        argparse.ArgumentTypeError: one is no number, or negative.
    """
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    if not weights or not all(0 <= weight < float("inf") for weight in weights):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of weights from 0 up, such as 0,0.1,0.2")
    return weights


def command_line() -> argparse.ArgumentParser:
    """The flags of an evaluation."""
    parser = argparse.ArgumentParser(
        prog="evaluate", description=__doc__.splitlines()[0], epilog="--section.key=value as in training"
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument(
        "--queries", default="categories", choices=tuple(QUERY_SETS),
        help="ask for each category once, or once for each of its re-ID query images",
    )  # fmt: skip
    parser.add_argument("--gallery-filter", default="none", choices=GALLERY_FILTERS)
    parser.add_argument("--reid", action="store_true", help="measure re-identification, too; needs --split test")
    parser.add_argument(
        "--fusion", default="checkpoint", choices=("checkpoint", "matrix"),
        help="largest distances of the fused distance: the checkpoint's, as served, or this evaluation's",
    )  # fmt: skip
    parser.add_argument(
        "--par-weights",
        type=parse_weights,
        default=(),
        metavar="W,…",
        help="also measure the fused distance with these",
    )
    parser.add_argument(
        "--cache", nargs="?", const=DEFAULT_FOLDER, metavar="DIR",
        help=f"keep decoded pixels in DIR ({DEFAULT_FOLDER}): --data.cache",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    parser = command_line()
    options, overrides = parser.parse_known_args(arguments)
    if options.reid and options.split != "test":
        parser.error(f"--reid is measured on the test split, not on {options.split}")
    if options.cache is not None:
        overrides.append(f"--data.cache={json.dumps(options.cache)}")
    try:
        checkpoint, config, persons = load_split(options.checkpoint, options.split, overrides)
        queries = QUERY_SETS[options.queries](persons, checkpoint.method.labels.categories, options.gallery_filter)
        crops = reid_crops(config.data) if options.reid else None
        keep_memory()
        accelerator = Accelerator(cpu=config.train.device == "cpu")
        embed = extractor(checkpoint.method, config, accelerator)
        gallery = embed(persons)
        reid = None if crops is None else evaluate_reid(crops, reid_embeddings(crops, gallery, embed))
    except (CheckpointError, ConfigError, DatasetError, SchemaError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    stored = Fusion(**checkpoint.metrics["fusion"])
    fusion = stored if options.fusion == "checkpoint" else None
    result = evaluate_search(checkpoint.method, gallery, fusion, (stored.par_weight,), queries, options.par_weights)
    if reid:
        result["reid"] = reid
    accelerator.print(json.dumps(result, indent=2) if options.json else format_table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
