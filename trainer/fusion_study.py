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

from accelerate import PartialState
from tqdm import tqdm

from descry.trainer.checkpoint import METRICS, CheckpointError, write_atomically
from descry.trainer.config import ConfigError
from descry.trainer.datasets import DatasetError
from descry.trainer.evaluation import query_distances
from descry.trainer.fusion_rules import RULES, Chosen, Searched
from descry.trainer.machine import keep_memory
from descry.trainer.metrics import mean_metrics, query_metrics
from descry.trainer.protocols import category_queries
from descry.trainer.retrieval import Fusion
from descry.trainer.schema import SchemaError
from descry.trainer.subject import Extractor, add_subject_flags, load_subject


def search_split(directory: Path, split: str, options: argparse.Namespace, overrides: Sequence[str]) -> Searched:
    """Embed a split of a checkpoint's dataset, and the complete descriptions in it.

    Raises:
        CheckpointError, ConfigError: the checkpoint or an override cannot be used.
        DatasetError: the dataset has no such split, or no complete description in it.
    """
    subject = load_subject(directory, split, overrides, options.cache)
    method = subject.checkpoint.method
    queries = category_queries(subject.persons, method.labels.categories)
    if not len(queries.attributes):
        raise DatasetError(f"{subject.config.data.root}: no image of {split} has all attributes known")
    gallery = Extractor(subject, options.features)(subject.persons)
    _, embedding = query_distances(method, queries, gallery)
    return Searched(queries.attributes, gallery.scores, embedding, queries.relevant, queries.seen)


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
    return {**where, "rules": rules, "best": asdict(best)}


def store(directory: Path, fusion: Fusion) -> None:
    """Make `fusion` the checkpoint's; its weights, and so its digest, stay."""
    path = directory / METRICS
    metrics = json.loads(path.read_text(encoding="utf-8"))
    write_atomically(path, (json.dumps({**metrics, "fusion": asdict(fusion)}, indent=2) + "\n").encode())


def format_study(result: dict[str, Any]) -> str:
    """A Markdown table, rank-1 / mAP in percent."""
    fit = result["fit"]
    lines = [
        f"{result['checkpoint']}: constants chosen by mAP on {fit}, judged on {result['split']}; rank-1 / mAP, %",
        "",
        f"| rule | constants | mAP on {fit} | all | seen | unseen |",
        "|---|---|---|---|---|---|",
    ]
    for name, rule in result["rules"].items():
        constants = ", ".join(f"{key} {value}" for key, value in rule["constants"].items())
        cells = [_pair(rule["search"].get(group)) for group in ("all", "seen", "unseen")]
        lines.append(f"| {name} | {constants} | {100 * rule['fit_mAP']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
                    store(directory, Fusion(**result["best"]))
    except (CheckpointError, ConfigError, DatasetError, SchemaError) as error:
        print(f"fusion_study: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
