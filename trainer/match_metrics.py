"""What probabilities of a match are worth, and what comes of answering "no match" below a threshold.

A search answers with its top hit where the score of this hit reaches the threshold, and "no match" elsewhere. It is a
false alarm where the gallery has nobody who fits and it answers with a hit; it is a miss where the gallery has somebody
and it answers "no match", whichever hit that was.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from descry.trainer.calibration import measure_reliability
from descry.trainer.match_probability import MatchProbability, TopHits
from descry.trainer.metrics import bootstrap_bounds

FALSE_ALARMS = 0.1
# Rates of false alarms at which a curve is read off.
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def match_metrics(probabilities: np.ndarray, matches: np.ndarray, queries: np.ndarray) -> dict[str, float]:
    """How well probabilities [n] say which top hits match.

    Args:
        probabilities: [n] in 0..1.
        matches: bool [n].
        queries: int [n], see `mean_bounds`.

    Returns:
        `searches`, n; `matches`, the share that match; `probability`, the mean probability; `error`, the ECE as in
        `Reliability`; `brier`, the mean squared difference, with `brier_low` and `brier_high`; `auroc`, how often a
        match has a higher probability than another hit, ties half. NaN where undefined.
    """
    squared = (probabilities - matches) ** 2
    low, high = mean_bounds(squared, queries)
    both = len(np.unique(matches)) == 2
    return {
        "searches": len(matches),
        "matches": _mean(matches),
        "probability": _mean(probabilities),
        "error": measure_reliability(probabilities, matches).error,
        "brier": _mean(squared),
        "brier_low": low,
        "brier_high": high,
        "auroc": float(roc_auc_score(matches, probabilities)) if both else math.nan,
    }


def mean_bounds(values: np.ndarray, queries: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of values [n]: whole queries are drawn, with all that was measured of them.

    Args:
        values: one a search.
        queries: int [n]; searches of the same query, such as parts of one description, have the same number.
    """
    if not len(values):
        return math.nan, math.nan
    _, owner, counts = np.unique(queries, return_inverse=True, return_counts=True)
    sums, mean = np.bincount(owner.ravel(), weights=values), values.mean()
    # The mean is a ratio of two sums over queries; linearised (Cochran, 1977) it is the mean of one number a query.
    linear = mean + (sums - mean * counts) / counts.mean()
    low, high = bootstrap_bounds(torch.from_numpy(linear)[:, None])[0].clamp(values.min(), values.max()).tolist()
    return low, high


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


@dataclass(frozen=True)
class OperatingCurve:
    """Error rates at every threshold that makes a difference, from the strictest on, [m] each, in 0..1.

    Attributes:
        thresholds: of the score; the first is infinite, where no search answers with a hit.
        false_alarms: share of the searches for somebody who is not there that answer with a hit; rising.
        misses: share of the searches for somebody who is there that answer "no match"; falling.
    """

    thresholds: np.ndarray
    false_alarms: np.ndarray
    misses: np.ndarray

    @property
    def equal_error_rate(self) -> float:
        """The mean of both rates where they are nearest to each other, at the strictest threshold among equals."""
        nearest = np.abs(self.false_alarms - self.misses).round(12).argmin()
        return float((self.false_alarms[nearest] + self.misses[nearest]) / 2)

    def threshold(self, false_alarms: float = FALSE_ALARMS) -> float:
        """The lowest threshold with at most this rate of false alarms; above all scores where no other has it."""
        place = self._place(false_alarms)
        return float(self.thresholds[place] if place else np.nextafter(self.thresholds[1], np.inf))

    def misses_at(self, false_alarms: float) -> float:
        """The rate of misses at `threshold`."""
        return float(self.misses[self._place(false_alarms)])

    def _place(self, false_alarms: float) -> int:
        return int(np.searchsorted(self.false_alarms, false_alarms, side="right")) - 1


def operating_curve(scores: np.ndarray, present: np.ndarray) -> OperatingCurve:
    """The curve of scores [n], higher is surer, of searches for somebody who is or is not `present`, bool [n].

    Raises:
        ValueError: all are, or none is.
    """
    if len(np.unique(present)) < 2:
        raise ValueError("an operating curve needs searches for somebody who is there and for somebody who is not")
    false_alarms, answered, thresholds = roc_curve(present, scores, drop_intermediate=False)
    return OperatingCurve(thresholds, false_alarms, 1 - answered)


def error_rates(scores: np.ndarray, present: np.ndarray, queries: np.ndarray, threshold: float) -> dict[str, float]:
    """Both rates at a threshold.

    Args:
        scores: [n], higher is surer.
        present: bool [n].
        queries: int [n], see `mean_bounds`.
        threshold: a score that reaches it answers with a hit.

    Returns:
        `false_alarms` and `misses` in 0..1, each with `_low` and `_high`; NaN without a search.
    """
    answers = scores >= threshold
    found: dict[str, float] = {}
    for name, rows, wrong in (("false_alarms", ~present, answers), ("misses", present, ~answers)):
        low, high = mean_bounds(wrong[rows], queries[rows])
        found |= {name: _mean(wrong[rows]), f"{name}_low": low, f"{name}_high": high}
    return found


def judge_hits(hits: TopHits, match: MatchProbability, threshold: float) -> dict[str, float]:
    """What the probability of a match, and "no match" below a threshold of it, are worth.

    Returns:
        `match_metrics` and `error_rates`; `equal_error`, the equal-error rate, and `equal_error_distance`, that of the
        fused distance alone; NaN where no search is for somebody absent.
    """
    probabilities = match(hits.features)
    found = match_metrics(probabilities, hits.matches, hits.queries)
    found |= error_rates(probabilities, hits.present, hits.queries, threshold)
    for name, scores in (("equal_error", probabilities), ("equal_error_distance", -hits.distances)):
        found[name] = math.nan if hits.present.all() else operating_curve(scores, hits.present).equal_error_rate
    return found
