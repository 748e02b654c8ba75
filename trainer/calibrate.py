"""Calibrate a checkpoint: what its scores and its top hits are worth, and when to answer "no match".

    python -m descry.trainer.calibrate CHECKPOINT [--fit val] [--split test] [--features] [--json] [--figure PNG]
        [--store] [--data.root=DIR]

Everything is fitted on the split of `--fit` and measured on that of `--split`. `--store` writes what a server needs
into the checkpoint's `metrics.json`, under `calibration`. docs/calibration.md says what each number means.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from descry.trainer.calibration import (
    AttributeCalibration,
    Reliability,
    fit_attributes,
    measure_attributes,
    measure_reliability,
)
from descry.trainer.calibration_figure import draw_calibration
from descry.trainer.calibration_report import format_calibration
from descry.trainer.checkpoint import METRICS, Checkpoint, CheckpointError, update_metrics
from descry.trainer.config import ConfigError
from descry.trainer.datasets import DatasetError, PersonDataset
from descry.trainer.extraction import Extracted
from descry.trainer.machine import describe_machine, keep_memory
from descry.trainer.match_metrics import RATES, OperatingCurve, judge_hits, operating_curve
from descry.trainer.match_probability import (
    FEATURES,
    SHARES,
    MatchProbability,
    TopHits,
    find_top_hits,
    fit_match_probability,
)
from descry.trainer.neighbourhood import average_neighbours
from descry.trainer.retrieval import Fusion
from descry.trainer.schema import SchemaError
from descry.trainer.subject import Extractor, Subject, add_subject_flags, load_subject


@dataclass(frozen=True)
class Observed:
    """What a checkpoint says of a split: of its crops, and as top hits of searches among them."""

    split: str
    crops: Extracted
    hits: TopHits

    @property
    def whole(self) -> TopHits:
        """The hits of searches among all images of the split."""
        return self.hits.rows(self.hits.images == len(self.crops.crops))

    def describe(self) -> dict[str, Any]:
        """How much there is of it."""
        descriptions = len(np.unique(self.hits.queries))
        return {"split": self.split, "images": len(self.crops.crops), "descriptions": descriptions}


@dataclass(frozen=True)
class Fitted:
    """What was fitted on a split.

    Attributes:
        attributes: of the PAR scores.
        match: of the top hit.
        threshold: of the match probability; what lies below is "no match".
    """

    attributes: AttributeCalibration
    match: MatchProbability
    threshold: float

    @classmethod
    def on(cls, observed: Observed) -> "Fitted":
        """Fit everything on one split."""
        crops, match = observed.crops, fit_match_probability(observed.hits)
        whole = observed.whole
        threshold = operating_curve(match(whole.features), whole.present).threshold()
        return cls(fit_attributes(crops.scores.numpy(), crops.attributes.numpy()), match, threshold)


def command_line() -> argparse.ArgumentParser:
    """The flags of a calibration."""
    parser = argparse.ArgumentParser(
        prog="calibrate", description=__doc__.splitlines()[0], epilog="--section.key=value as in training"
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--fit", default="val", choices=("train", "val"), help="split to fit on")
    add_subject_flags(parser)
    parser.add_argument("--json", action="store_true", help="print everything, unrounded")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw reliability diagrams and error rates")
    parser.add_argument("--store", action="store_true", help=f"write what a server needs into {METRICS}")
    return parser


def fitting_persons(subject: Subject, split: str) -> PersonDataset:
    """The crops to fit on.

    Raises:
        DatasetError: there are none, or those that would be held out as `val` were trained on.
    """
    own, asked = subject.checkpoint.config.data, subject.config.data
    drawn = [(data.name, data.protocol, data.validation, data.split_seed) for data in (own, asked)]
    if split == "val" and asked.validation and own.name == asked.name and drawn[0] != drawn[1]:
        raise DatasetError(
            f"{subject.checkpoint.directory} was trained with data.validation={own.validation:g} of protocol "
            f"{own.protocol!r} and seed {own.split_seed}: it has seen images that you hold out now. Train with "
            f"--data.validation={asked.validation:g}, or fit on what it was trained on with --fit train"
        )
    persons = subject.dataset.subset(split)
    if not len(persons):
        raise DatasetError(
            f"{asked.root} has no {split} split. Train with --data.validation=0.1, which holds one out, or fit on what "
            "was trained on with --fit train"
        )
    return persons


def measure(subject: Subject, fitted: Fitted, fit: Observed, test: Observed) -> dict[str, Any]:
    """Everything that is measured: plain values, `Reliability` and `OperatingCurve`."""
    checkpoint, crops, hits = subject.checkpoint, test.crops, test.whole
    scores, labels = crops.scores.numpy(), crops.attributes.numpy()
    by_stated = {f"{stated}": hits.rows(hits.stated == stated) for stated in np.unique(hits.stated)}
    return {
        "checkpoint": {
            "directory": str(checkpoint.directory),
            "method": subject.config.method["name"],
            "digest": checkpoint.digest,
        },
        "dataset": subject.dataset.name,
        "fit": fit.describe(),
        "test": test.describe(),
        "attributes": measure_attributes(fitted.attributes, scores, labels, checkpoint.schema),
        "match": {
            **_law(fitted),
            "fit": judge_hits(fit.whole, fitted.match, fitted.threshold),
            "test": {
                name: judge_hits(rows, fitted.match, fitted.threshold)
                for name, rows in {"all": hits, **by_stated}.items()
            },
            **_curves(hits, fitted.match),
        },
        "machine": describe_machine(),
    }


def _law(fitted: Fitted) -> dict[str, Any]:
    weights = dict(zip(FEATURES, fitted.match.weights, strict=True))
    return {"weights": weights, "intercept": fitted.match.intercept, "threshold": fitted.threshold}


def _curves(hits: TopHits, match: MatchProbability) -> dict[str, Any]:
    """Reliability and operating curves of all and of complete descriptions, and of the fused distance alone."""
    probabilities, complete = match(hits.features), hits.stated == hits.stated.max()
    chosen = {"all descriptions": np.full(len(hits), True), "complete descriptions": complete}
    curves = {name: operating_curve(probabilities[rows], hits.present[rows]) for name, rows in chosen.items()}
    return {
        "reliability": {
            name: measure_reliability(probabilities[rows], hits.matches[rows]) for name, rows in chosen.items()
        },
        "curves": {**curves, "fused distance alone": operating_curve(-hits.distances, hits.present)},
    }


def to_plain(curve: Reliability | OperatingCurve) -> Any:
    """A curve as JSON: the bins that hold something, or the misses at a few rates of false alarms."""
    if isinstance(curve, Reliability):
        return {name: values[curve.counts > 0].tolist() for name, values in vars(curve).items()}
    return [{"false_alarms": rate, "misses": curve.misses_at(rate)} for rate in RATES]


def store(checkpoint: Checkpoint, result: dict[str, Any]) -> None:
    """Put what a server needs into the checkpoint's `metrics.json`.

    Raises:
        CheckpointError: it cannot be written.
    """
    match, elements = result["match"], result["attributes"]["elements"]
    calibration = {
        "dataset": result["dataset"],
        **result["fit"],
        "temperatures": {name: element["temperature"] for name, element in elements.items()},
        "match": {name: match[name] for name in ("weights", "intercept", "threshold")},
        "no_match": {name: match["fit"][name] for name in ("false_alarms", "misses")},
    }
    update_metrics(checkpoint.directory, calibration=calibration)


def calibrate(options: argparse.Namespace, overrides: Sequence[str]) -> dict[str, Any]:
    """Fit, measure, and draw and store where that was asked for; `options` as of `command_line`.

    Raises:
        CheckpointError, ConfigError, DatasetError, SchemaError: something cannot be used.
    """
    subject = load_subject(options.checkpoint, options.split, overrides, options.cache)
    persons = {options.fit: fitting_persons(subject, options.fit), options.split: subject.persons}
    embed, fusion = Extractor(subject, options.features), Fusion(**subject.checkpoint.metrics["fusion"])
    method, progress = subject.checkpoint.method, embed.accelerator.is_local_main_process
    observed = []
    for (split, chosen), shares in zip(persons.items(), (SHARES, (1.0,)), strict=True):
        crops = embed(chosen)
        searched = average_neighbours(crops, fusion.neighbours)
        hits = find_top_hits(method, searched, fusion, shares, progress=progress)
        observed.append(Observed(split, crops, hits))
    fit, test = observed
    fitted = Fitted.on(fit)
    result = measure(subject, fitted, fit, test)
    if embed.accelerator.is_main_process:
        if options.figure:
            draw_calibration(result, options.figure)
        if options.store:
            store(subject.checkpoint, result)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    parser = command_line()
    options, overrides = parser.parse_known_args(arguments)
    if options.fit == options.split:
        parser.error(f"--fit and --split are both {options.fit}: what is measured where it was fitted proves nothing")
    keep_memory()
    try:
        result = calibrate(options, overrides)
    except (CheckpointError, ConfigError, DatasetError, SchemaError) as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 1
    if not PartialState().is_main_process:
        return 0
    if options.fit == "train":
        note = "fitted on images that were trained on: probabilities are too sure, and errors more frequent than stored"
        print(f"calibrate: {note}", file=sys.stderr)
    print(json.dumps(result, default=to_plain) if options.json else format_calibration(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
