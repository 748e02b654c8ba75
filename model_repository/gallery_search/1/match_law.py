"""How probable it is that a hit is what the description says, and when to answer "no match" (docs/calibration.md)."""

from dataclasses import dataclass

import numpy as np
from served_model import ModelError, ServedModel

FEATURES = ("par_per_group", "embedding_distance", "stated", "log_stated", "log_images")
MATCH, NO_MATCH, UNCALIBRATED = "match", "no match", "uncalibrated"


@dataclass(frozen=True)
class MatchLaw:
    """The probability sigmoid(intercept + weights · features), and the operating point below which nothing matches.

    Attributes:
        weights: of each of `FEATURES`.
        intercept: the logit where all features are 0.
        threshold: of the probability of the first hit.
    """

    weights: tuple[float, ...]
    intercept: float
    threshold: float

    @classmethod
    def of(cls, model: ServedModel) -> "MatchLaw | None":
        """The law that the model was exported with; None when it was not calibrated.

        Raises:
            ModelError: it cannot be read.
        """
        if model.calibration is None:
            return None
        try:
            match = model.calibration["match"]
            weights = tuple(float(match["weights"][name]) for name in FEATURES)
            return cls(weights, float(match["intercept"]), float(match["threshold"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"descry: fusion.json holds a calibration without {error}: calibrate and export it again"
            ) from error

    def probabilities(self, par: np.ndarray, apart: np.ndarray, stated: float, images: int) -> np.ndarray:
        """The probability of each hit, float64 [K] in 0..1.

        Args:
            par: PAR distances [K], before they are divided by their maximum.
            apart: embedding distances [K], before they are divided by their maximum.
            stated: attribute groups that the description states, > 0.
            images: how many are ranked, > 0.
        """
        par_weight, embedding_weight, *others = self.weights
        same = self.intercept + np.dot(others, [stated, np.log(stated), np.log(images)])
        # Half a tangens hyperbolicus, which does not overflow.
        return (1 + np.tanh((par_weight * par / stated + embedding_weight * apart + same) / 2)) / 2

    def verdict(self, probabilities: np.ndarray, threshold: float) -> str:
        """`match` or `no match` of hits, best first [K]; a negative threshold is the law's own."""
        limit = self.threshold if threshold < 0 else threshold
        return MATCH if len(probabilities) and probabilities[0] >= limit else NO_MATCH


def stated_groups(known: np.ndarray, sizes: list[int]) -> float:
    """How many groups known [N] states: of each the largest element, so that one stated with 0.7 counts 0.7."""
    starts = np.cumsum([0, *sizes[:-1]])
    return float(np.maximum.reduceat(known.astype(np.float64), starts).sum())
