"""How far PAR scores are from probabilities, and what brings them there: a temperature, or isotonic regression.

Guo et al., 2017, for one attribute at a time: the score of an attribute is the probability that somebody has it, so the
bins go by this score and compare it with the share of those who have it, where the paper compares the confidence in
one of many classes with accuracy.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from descry.trainer.schema import UNKNOWN, AttributeSchema

BINS = 15
# Positives, and negatives, that an attribute needs to be calibrated: ten events a fitted parameter (Peduzzi et al.,
# 1996). With fewer a temperature follows single images.
FEWEST = 10
TEMPERATURES = (0.05, 20.0)
# No validation split is large enough to tell surer scores apart, and the logit of 0 or 1 is infinite.
CERTAIN = 1e-6
FORMS = ("raw", "temperature", "isotonic")


@dataclass(frozen=True)
class Reliability:
    """The reliability curve of scores, in `BINS` bins of equal width: 0 to 1/15, above that to 2/15, and so on.

    Attributes:
        counts: int64 [BINS], labels in each bin.
        scores: float64 [BINS], their mean score; NaN in an empty bin.
        positives: float64 [BINS], the share of them that are positive; NaN in an empty bin.
    """

    counts: np.ndarray
    scores: np.ndarray
    positives: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error, in 0..1: |mean score - share of positives| of the bins, weighted by count.

        NaN without a label.
        """
        if not self.counts.any():
            return math.nan
        gaps = np.abs(self.scores - self.positives)
        return float(np.nansum(self.counts * gaps) / self.counts.sum())


def measure_reliability(scores: np.ndarray, positive: np.ndarray) -> Reliability:
    """The reliability curve of scores [n] in 0..1 of labels, bool [n]."""
    which = np.digitize(scores, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
    counts = np.bincount(which, minlength=BINS)
    sums, hits = (np.bincount(which, weights=weights, minlength=BINS) for weights in (scores, positive))
    whole = np.where(counts > 0, counts, np.nan)
    return Reliability(counts, sums / whole, hits / whole)


def fit_temperature(scores: np.ndarray, positive: np.ndarray) -> float:
    """The T, within `TEMPERATURES`, under which sigmoid(logit(score) / T) makes the labels most likely.

    Args:
        scores: [n] in 0..1.
        positive: bool [n].
    """
    logits = _logits(scores)
    of_truth = np.where(positive, logits, -logits)

    def surprise(exponent: float) -> float:
        return float(np.logaddexp(0, -of_truth / math.exp(exponent)).mean())

    low, high = map(math.log, TEMPERATURES)
    return math.exp(minimize_scalar(surprise, bounds=(low, high), method="bounded").x)


def _logits(scores: np.ndarray) -> np.ndarray:
    return logit(np.clip(scores.astype(np.float64), CERTAIN, 1 - CERTAIN))


@dataclass(frozen=True)
class AttributeCalibration:
    """What turns the scores of each attribute into probabilities.

    Attributes:
        temperatures: float64 [N]; 1 where there were too few labels, which leaves scores as they are.
        isotonic: N regressions; None where there were too few labels.
    """

    temperatures: np.ndarray
    isotonic: tuple[IsotonicRegression | None, ...]

    def apply(self, form: str, scores: np.ndarray) -> np.ndarray:
        """Scores [n, N] in one of `FORMS`, float64. A temperature leaves every score on its side of 0.5."""
        if form == "raw":
            return scores.astype(np.float64)
        if form == "temperature":
            return expit(_logits(scores) / self.temperatures)
        columns = [
            column.astype(np.float64) if regression is None else regression.predict(column.astype(np.float64))
            for column, regression in zip(scores.T, self.isotonic, strict=True)
        ]
        return np.stack(columns, axis=1)


def fit_attributes(scores: np.ndarray, labels: np.ndarray) -> AttributeCalibration:
    """Fit both calibrations of each attribute that has `FEWEST` positives and as many negatives.

    Args:
        scores: [n, N] in 0..1, of images that were not trained on.
        labels: uint8 [n, N]; 255 = unknown.
    """
    temperatures, regressions = [], []
    for column, known, truth in zip(scores.T.astype(np.float64), labels.T != UNKNOWN, labels.T == 1, strict=True):
        column, truth = column[known], truth[known]
        enough = min(truth.sum(), (~truth).sum()) >= FEWEST
        regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(column, truth) if enough else None
        temperatures.append(fit_temperature(column, truth) if enough else 1.0)
        regressions.append(regression)
    return AttributeCalibration(np.array(temperatures), tuple(regressions))


def measure_attributes(
    calibration: AttributeCalibration, scores: np.ndarray, labels: np.ndarray, schema: AttributeSchema
) -> dict[str, Any]:
    """How reliable the scores are in each of `FORMS`.

    Args:
        calibration: fitted on other images.
        scores: [n, N] in 0..1.
        labels: uint8 [n, N]; 255 = unknown, left out.
        schema: meaning of the N attributes.

    Returns:
        `elements`: by name `known` and `positives`, counts; `temperature`; `fitted`, whether it had labels enough;
        `error`, the ECE of each form, NaN without a known label. `error`: their means over the elements that have one.
        `pooled`: the `Reliability` of each form over the labels of all elements.
    """
    known, positive = labels != UNKNOWN, labels == 1
    forms = {form: calibration.apply(form, scores) for form in FORMS}
    elements: dict[str, dict[str, Any]] = {
        name: {
            "known": int(known[:, column].sum()),
            "positives": int(positive[:, column].sum()),
            "temperature": float(calibration.temperatures[column]),
            "fitted": calibration.isotonic[column] is not None,
            "error": {form: _reliability(form_scores, positive, known, column) for form, form_scores in forms.items()},
        }
        for column, name in enumerate(schema.elements)
    }
    shown = [element["error"] for element in elements.values() if element["known"]]
    return {
        "elements": elements,
        "error": {form: float(np.mean([error[form] for error in shown])) if shown else math.nan for form in FORMS},
        "pooled": {form: measure_reliability(values[known], positive[known]) for form, values in forms.items()},
    }


def _reliability(scores: np.ndarray, positive: np.ndarray, known: np.ndarray, column: int) -> float:
    rows = known[:, column]
    return measure_reliability(scores[rows, column], positive[rows, column]).error
