"""Choose how PAR scores and embedding distance are fused: on one split, judged on another.

    python -m descry.trainer.fusion_study CHECKPOINT … --fit val [--split test] [--features] [--json | --store]
        [--data.root=DIR]

Every rule of `fusion_rules.py` gets the constants with the best mAP on `--fit`; the table says what it is worth on
`--split`, over all categories and apart over those that training had and had not. `--store` writes the constants of the
best servable rule (by mAP on `--fit`) into the checkpoint, where evaluation and export take them from.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from tqdm import tqdm

from descry.trainer.checkpoint import CheckpointError, read_metrics, update_metrics
from descry.trainer.config import ConfigError
from descry.trainer.datasets import DatasetError
from descry.trainer.extraction import encode_descriptions
from descry.trainer.fusion_rules import RULES, Chosen, Searched
from descry.trainer.machine import keep_memory
from descry.trainer.markdown import markdown_table
from descry.trainer.metrics import mean_metrics, query_metrics
from descry.trainer.neighbourhood import average_neighbours
from descry.trainer.retrieval import embedding_distances
from descry.trainer.schema import SchemaError
from descry.trainer.subject import Extractor, add_subject_flags, load_subject


def search_split(directory: Path, split: str, options: argparse.Namespace, overrides: Sequence[str]) -> Searched:
    """Embed a split of a checkpoint's dataset, and the complete descriptions in it; averaged as the checkpoint says.

    Raises:
        CheckpointError, ConfigError: the checkpoint or an override cannot be used.
        DatasetError: the dataset has no such split, or no complete description in it.
    """
    subject = load_subject(directory, split, overrides, options.cache)
    method = subject.checkpoint.method
    queries = subject.category_queries()
    neighbours = subject.checkpoint.metrics["fusion"].get("neighbours", 0)
    gallery = average_neighbours(Extractor(subject, options.features)(subject.persons), neighbours)
    encoded = encode_descriptions(method, queries.attributes, torch.ones_like(queries.attributes))
    embedding = embedding_distances(encoded, gallery.embeddings)
    return Searched(queries.attributes, gallery.scores, embedding, queries.relevant, queries.seen, neighbours)


def measure(chosen: Chosen, judged: Searched) -> dict[str, Any]:
    """What a rule is worth: `mean_metrics` over `all`, `seen` and `unseen` categories, where there are any."""
    measured = query_metrics(chosen.distances(judged), judged.relevant)
    groups = {"all": judged.seen | True, "seen": judged.seen, "unseen": ~judged.seen}
    return {name: mean_metrics(measured[rows]) for name, rows in groups.items() if rows.any()}


def study(directory: Path, options: argparse.Namespace, overrides: Sequence[str]) -> dict[str, Any]:
    """Choose every rule's constants on `options.fit` and judge it on `options.split`."""
    fitted = search_split(directory, options.fit, options, overrides)
    judged = search_split(directory, options.split, options, overrides)
    rules, servable = {}, []
    for name, rule in tqdm(RULES.items(), desc="fusion rules", disable=None, leave=False):
        chosen = rule(fitted)
        rules[name] = {"constants": chosen.constants, "fit_mAP": chosen.mAP, "search": measure(chosen, judged)}
        servable += [chosen] if chosen.fusion else []
    best = max(servable, key=lambda chosen: chosen.mAP).fusion
    assert best is not None
    where = {"checkpoint": str(directory), "fit": options.fit, "split": options.split}
    return {**where, "rules": rules, "best": {**asdict(best), "neighbours": fitted.neighbours}}


def store(directory: Path, fusion: dict[str, Any]) -> None:
    """Keep a fusion with the checkpoint; a calibration of another one goes, since its probabilities are of that one.

    Raises:
        CheckpointError: it cannot be written.
    """
    metrics = read_metrics(directory)
    stale = "calibration" in metrics and metrics["fusion"] != fusion
    update_metrics(directory, fusion=fusion, **({"calibration": None} if stale else {}))
    if stale:
        note = "its calibration was of another fusion and is removed: run `descry.trainer.calibrate --store` again"
        print(f"fusion_study: {directory}: {note}", file=sys.stderr)


def format_study(result: dict[str, Any]) -> str:
    """A Markdown table, rank-1 / mAP in percent."""
    fit = result["fit"]
    rows = [
        [
            name,
            ", ".join(f"{key} {value}" for key, value in rule["constants"].items()),
            f"{100 * rule['fit_mAP']:.1f}",
            *(_pair(rule["search"].get(group)) for group in ("all", "seen", "unseen")),
        ]
        for name, rule in result["rules"].items()
    ]
    note = f"{result['checkpoint']}: constants chosen by mAP on {fit}, judged on {result['split']}; rank-1 / mAP, %"
    return f"{note}\n\n{markdown_table(['rule', 'constants', f'mAP on {fit}', 'all', 'seen', 'unseen'], rows)}"


def _pair(metrics: dict[str, float] | None) -> str:
    return f"{100 * metrics['rank1']:.1f} / {100 * metrics['mAP']:.1f}" if metrics else ""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="--section.key=value as in training")
    parser.add_argument("checkpoint", type=Path, nargs="+")
    parser.add_argument("--fit", required=True, choices=("val", "train"), help="the split to choose constants on")
    add_subject_flags(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON, one line a checkpoint")
    parser.add_argument("--store", action="store_true", help="keep the best servable constants with the checkpoint")
    options, overrides = parser.parse_known_args(arguments)
    if options.fit == options.split:
        parser.error(f"constants that are chosen on {options.fit} cannot be judged there: give another --split")
    keep_memory()
    try:
        for directory in options.checkpoint:
            result = study(directory, options, overrides)
            if PartialState().is_main_process:
                print(json.dumps(result) if options.json else format_study(result))
                if options.store:
                    store(directory, result["best"])
    except (CheckpointError, ConfigError, DatasetError, SchemaError) as error:
        print(f"fusion_study: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
