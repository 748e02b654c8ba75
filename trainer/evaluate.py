"""Evaluate checkpoints: attribute search, attribute recognition and re-identification, one table for all.

    python -m descry.trainer.evaluate CHECKPOINT … [--dataset EXPERIMENT …] [--split test] [--queries categories]
        [--gallery-filter none] [--reid] [--fusion checkpoint] [--par-weights 0,0.1,0.2] [--features]
        [--json | --markdown] [--data.root=DIR]

Every checkpoint is measured on its own dataset, or with `--dataset` on those of these experiments.

Protocol: every distinct complete category of the gallery is one query, or with `--queries images` every re-ID query
image's description; images of that category are relevant. All images of the gallery count (ASMR), or with
`--gallery-filter same_camera` not those of the described person by the same camera (SAL). The fused distance has the
constants that a server uses, those of the checkpoint, or with `--fusion matrix` the largest distances of this very
evaluation (Multi-task Transformer), which no server can know before it has seen all queries. docs/evaluation.md says
what each number means.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState

from descry.trainer.checkpoint import CheckpointError
from descry.trainer.config import ConfigError, FusionConfig, load_config
from descry.trainer.datasets import DatasetError
from descry.trainer.datasets.statistics import describe
from descry.trainer.efficiency import model_costs
from descry.trainer.evaluation import evaluate_search
from descry.trainer.evaluation_report import format_markdown, format_table
from descry.trainer.machine import describe_machine, keep_memory
from descry.trainer.protocols import GALLERY_FILTERS, QUERY_SETS
from descry.trainer.reid import evaluate_reid, reid_crops, reid_embeddings
from descry.trainer.retrieval import Fusion
from descry.trainer.schema import SchemaError
from descry.trainer.subject import Extractor, add_subject_flags, load_subject


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
    parser.add_argument("checkpoint", type=Path, nargs="+")
    parser.add_argument(
        "--dataset", type=Path, nargs="+", default=[], metavar="EXPERIMENT",
        help="experiments whose `data` to measure on, instead of each checkpoint's own",
    )  # fmt: skip
    add_subject_flags(parser)
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
        "--par-weights", type=parse_weights, default=(), metavar="W,…",
        help="also measure the fused distance with these",
    )  # fmt: skip
    parser.add_argument(
        "--neighbours", type=int, metavar="K",
        help="average the gallery over so many, instead of the checkpoint's number",
    )  # fmt: skip
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print everything, unrounded: one line a measurement")
    form.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    return parser


def evaluate(directory: Path, options: argparse.Namespace, overrides: Sequence[str]) -> dict[str, Any]:
    """Measure one checkpoint on one dataset; `options` as of `command_line`.

    Raises:
        CheckpointError, ConfigError, DatasetError, SchemaError: something cannot be used.
    """
    subject = load_subject(directory, options.split, overrides, options.cache)
    checkpoint, persons, method = subject.checkpoint, subject.persons, subject.checkpoint.method
    queries = QUERY_SETS[options.queries](persons, method.labels.categories, options.gallery_filter)
    crops = reid_crops(subject.dataset) if options.reid else None
    embed = Extractor(subject, options.features)
    gallery = embed(persons)
    started = time.monotonic()
    stored = Fusion(**checkpoint.metrics["fusion"])
    if options.neighbours is not None:
        stored = replace(stored, neighbours=options.neighbours)
    measured_here = FusionConfig((stored.par_weight,), stored.par_distance, (stored.neighbours,))
    fusion = stored if options.fusion == "checkpoint" else measured_here
    result = {
        "checkpoint": {
            "directory": str(directory),
            "method": subject.config.method["name"],
            "digest": checkpoint.digest,
        },
        "dataset": {"split": options.split, **describe(subject.dataset)},
        "images": len(persons),
        "model": model_costs(method, subject.config.image),
        **evaluate_search(method, gallery, fusion, queries, options.par_weights),
    }
    result["seconds"] = {"extraction": gallery.seconds, "evaluation": time.monotonic() - started}
    if crops is not None:
        result["reid"] = evaluate_reid(crops, reid_embeddings(crops, gallery, embed))
    config = yaml.safe_load(subject.config.to_yaml())
    return {**result, "config": config, "machine": describe_machine()}


def dataset_overrides(experiment: Path) -> list[str]:
    """The `data` section of an experiment as overrides.

    Raises:
        ConfigError: the file cannot be used.
    """
    return [f"--data={json.dumps(vars(load_config(experiment).data))}"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    parser = command_line()
    options, overrides = parser.parse_known_args(arguments)
    if options.reid and options.split != "test":
        parser.error(f"--reid is measured on the test split, not on {options.split}")
    keep_memory()
    results, failed = [], False
    for directory, experiment in itertools.product(options.checkpoint, options.dataset or [None]):
        try:
            data = dataset_overrides(experiment) if experiment else []
            results.append(evaluate(directory, options, [*data, *overrides]))
        except (CheckpointError, ConfigError, DatasetError, SchemaError) as error:
            print(f"evaluate: {error}", file=sys.stderr)
            failed = True
    if results and PartialState().is_main_process:
        print(write_results(results, options))
    return 1 if failed else 0


def write_results(results: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    """The measurements in the form that was asked for."""
    if options.json:
        return "\n".join(json.dumps(result) for result in results)
    return format_markdown(results) if options.markdown else "\n\n".join(map(format_table, results))


if __name__ == "__main__":
    sys.exit(main())
