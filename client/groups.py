"""One attribute group: what may be stated of it, what that means for its elements, and how it reads in a photo."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from descry.client.errors import InvalidRequest
from descry.client.statements import NONE, UNKNOWN, AnyOf, Not, Stated, Statement, Value


@dataclass(frozen=True)
class Prediction:
    """The most probable value of one group; `probability` in 0..1."""

    group: str
    value: str
    probability: float


@dataclass(frozen=True)
class Claim:
    """A statement that was checked against its group.

    Attributes:
        alternatives: each acceptable value, or each one ruled out, as the values that hold at once, in schema order.
        denied: whether the alternatives are ruled out.
        confidence: above 0, up to 1.
        text: the statement in words.
    """

    alternatives: tuple[tuple[str, ...], ...]
    denied: bool
    confidence: float
    text: str

    def accepts(self, values: tuple[str, ...]) -> bool:
        """Whether a photo that shows exactly `values` is as stated."""
        if self.denied:
            return not any(set(ruled_out) & set(values) for ruled_out in self.alternatives)
        return values in self.alternatives


@dataclass(frozen=True)
class Group:
    """One attribute group: see docs/wire.md, The schema."""

    name: str
    kind: str
    part: str
    values: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of elements in the attribute vector."""
        return 1 if self.kind == "binary" else len(self.values)

    @property
    def choices(self) -> tuple[str, ...]:
        """What may be stated, `none` last where the group can have no value."""
        return self.values if self.kind == "binary" else (*self.values, NONE)

    def parse(self, statement: Statement) -> Claim | None:
        """What the statement claims; None where it leaves the group unknown.

        Raises:
            InvalidRequest: not a value of this group, too many, or a confidence out of range.
        """
        if isinstance(statement, Stated):
            return self._claim(statement.what, self._checked(statement.confidence))
        return self._claim(statement, 1.0)

    def elements(self, claim: Claim) -> tuple[np.ndarray, np.ndarray]:
        """A claim as `attributes`, 0 or 1, and `known`, 0 or the confidence; both float32 [size].

        An element is known where every acceptable value has it, or none does.
        """
        encoded = np.stack([self.encode(values) for values in claim.alternatives])
        if claim.denied:
            attributes, known = np.zeros(self.size, np.float32), encoded.any(axis=0)
        else:
            attributes, known = encoded[0], (encoded == encoded[0]).all(axis=0)
        return attributes * known, known * np.float32(claim.confidence)

    def encode(self, values: Sequence[str]) -> np.ndarray:
        """Values that hold at once as elements, float32 [size] of 0 and 1."""
        shown = self.values[1:] if self.kind == "binary" else self.values
        return np.array([value in values for value in shown], np.float32)

    def shown(self, scores: np.ndarray) -> tuple[str, ...]:
        """The values that a photo with `scores` [size] most probably has, in schema order."""
        if self.kind == "multi":
            return tuple(value for value, score in zip(self.values, scores, strict=True) if score >= 0.5) or (NONE,)
        return (max(self.choices, key=lambda value: self.probability((value,), scores)),)

    def predict(self, scores: np.ndarray, calibrated: np.ndarray | None = None) -> Prediction:
        """The most probable value by `scores`, and its probability by the `calibrated` ones; both [size] in 0..1."""
        values = self.shown(scores)
        probability = self.probability(values, scores if calibrated is None else calibrated)
        return Prediction(self.name, "+".join(values), probability)

    def probability(self, values: Sequence[str], scores: np.ndarray) -> float:
        """Probability in 0..1 of exactly `values` given `scores` [size].

        The values of a choice exclude one another, so none of them has what they leave of 1; the elements of a multi
        group count as independent.
        """
        stated = self.encode(values)
        if self.kind == "choice":
            return float(max(0.0, 1.0 - scores.sum()) if NONE in values else scores @ stated)
        return math.prod(float(score if present else 1 - score) for present, score in zip(stated, scores, strict=True))

    def claimed(self, claim: Claim, scores: np.ndarray) -> float:
        """Probability in 0..1 that a photo with `scores` [size] is as claimed."""
        if not claim.denied:
            return min(1.0, math.fsum(self.probability(values, scores) for values in claim.alternatives))
        ruled_out = scores[self.elements(claim)[1] > 0]
        return max(0.0, 1.0 - float(ruled_out.sum())) if self.kind == "choice" else float((1 - ruled_out).prod())

    def _claim(self, what: Value | AnyOf | Not | None, confidence: float) -> Claim | None:
        if what is None or what == UNKNOWN:
            return None
        if isinstance(what, Not):
            alternatives, denied = self._left(what)
        else:
            given = what.values if isinstance(what, AnyOf) else (what,)
            alternatives, denied = tuple(dict.fromkeys(map(self._parse_value, given))), False
        if isinstance(what, (AnyOf, Not)) and not (what.values and all(alternatives)):
            raise InvalidRequest(f"{self.name}: name at least one value of {', '.join(self.choices)}")
        text = str(what) if isinstance(what, (AnyOf, Not)) else "+".join(alternatives[0])
        claim = Claim(alternatives, denied, confidence, text if confidence == 1 else f"{text}@{confidence:g}")
        return claim if confidence and any(alternatives) and self.elements(claim)[1].any() else None

    def _checked(self, confidence: float) -> float:
        if not 0 <= confidence <= 1:
            raise InvalidRequest(f"{self.name}: a confidence is a number from 0 to 1, not {confidence:g}")
        return float(confidence)

    def _parse_value(self, stated: Value) -> tuple[str, ...]:
        """The values that hold at once, in the schema's order."""
        if not isinstance(stated, Sequence):
            raise InvalidRequest(f"{self.name}: {stated!r} is no statement; say a value of {', '.join(self.choices)}")
        # A value may itself hold a plus (`60+`), so the whole text is tried before it is split.
        plain = isinstance(stated, str) and (stated in self.choices or self.kind != "multi")
        given = [str(stated)] if plain else stated.split("+") if isinstance(stated, str) else list(stated)
        for value in given:
            if value not in self.choices:
                raise InvalidRequest(f"{self.name}: {not_one_of(value, (*self.choices, UNKNOWN))}")
        if len(given) > 1 and (self.kind != "multi" or NONE in given):
            joined = "+".join(given)
            either = "" if NONE in given else f"; where it may be either, say {'|'.join(given)}"
            raise InvalidRequest(f"{self.name} takes one value, not {joined}{either}")
        return tuple(value for value in self.choices if value in given)

    def _left(self, denial: Not) -> tuple[tuple[tuple[str, ...], ...], bool]:
        """What a denial comes to: `Claim.alternatives` and `Claim.denied`."""
        for value in denial.values:
            if value not in self.values:
                raise InvalidRequest(f"{self.name}: what it is not {not_one_of(value, self.values)}")
        if self.kind != "binary":
            return tuple((value,) for value in dict.fromkeys(denial.values)), True
        left = [value for value in self.values if value not in denial.values]
        if not left:
            raise InvalidRequest(f"{self.name}: {' and '.join(denial.values)} cannot both be ruled out")
        return tuple((value,) for value in left), False


def not_one_of(given: str, valid: Sequence[str]) -> str:
    """That `given` is none of the valid texts, and which one it resembles."""
    near = difflib.get_close_matches(str(given), valid, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{given!r} is not known{hint}; valid: {', '.join(valid)}"
