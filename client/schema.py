"""The attribute schema as the server states it: descriptions in, vectors out, and scores explained back in words."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from descry.client.errors import InvalidRequest, ServerFailed

UNKNOWN = "unknown"
NONE = "none"

Statements = Mapping[str, str | Sequence[str] | None]


@dataclass(frozen=True)
class Prediction:
    """The most probable value of one group; `probability` in 0..1."""

    group: str
    value: str
    probability: float


@dataclass(frozen=True)
class Agreement:
    """How one stated group fits a photo.

    Attributes:
        group: the stated group.
        stated: the value asked for; several are joined by `+`.
        predicted: the value that the photo most probably has.
        probability: of the stated value, in 0..1.
        term: the group's share of the squared attribute distance, >= 0; 0 is a perfect fit.
    """

    group: str
    stated: str
    predicted: str
    probability: float
    term: float

    @property
    def agrees(self) -> bool:
        """Whether the stated value is the most probable one."""
        return self.stated == self.predicted


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

    def parse(self, stated: str | Sequence[str] | None) -> tuple[str, ...]:
        """The stated values in the schema's order; empty when the group is left out.

        Raises:
            InvalidRequest: not a value of this group, or too many.
        """
        if stated is None or stated == UNKNOWN:
            return ()
        # A value may itself hold a plus (`60+`), so the whole text is tried before it is split.
        plain = isinstance(stated, str) and (stated in self.choices or self.kind != "multi")
        given = [str(stated)] if plain else stated.split("+") if isinstance(stated, str) else list(stated)
        for value in given:
            if value not in self.choices:
                raise InvalidRequest(f"{self.name}: {_not_one_of(value, (*self.choices, UNKNOWN))}")
        if len(given) > 1 and (self.kind != "multi" or NONE in given):
            raise InvalidRequest(f"{self.name} takes one value, not {'+'.join(given)}")
        return tuple(value for value in self.choices if value in given)

    def encode(self, values: Sequence[str]) -> np.ndarray:
        """Parsed values as elements, float32 [size] of 0 and 1."""
        shown = self.values[1:] if self.kind == "binary" else self.values
        return np.array([value in values for value in shown], np.float32)

    def predict(self, scores: np.ndarray) -> Prediction:
        """The most probable value, from `scores` [size] in 0..1."""
        if self.kind == "multi":
            values = tuple(value for value, score in zip(self.values, scores, strict=True) if score >= 0.5) or (NONE,)
        else:
            values = (max(self.choices, key=lambda value: self.probability((value,), scores)),)
        return Prediction(self.name, "+".join(values), self.probability(values, scores))

    def probability(self, values: Sequence[str], scores: np.ndarray) -> float:
        """Probability in 0..1 of exactly `values` given `scores` [size].

        The values of a choice exclude one another, so none of them has what they leave of 1; the elements of a multi
        group count as independent.
        """
        stated = self.encode(values)
        if self.kind == "choice":
            return float(max(0.0, 1.0 - scores.sum()) if NONE in values else scores @ stated)
        return math.prod(float(score if present else 1 - score) for present, score in zip(stated, scores, strict=True))


@dataclass(frozen=True)
class Schema:
    """The ordered groups of a server's model; fixes the order and the length N of the attribute vector."""

    name: str
    groups: tuple[Group, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Schema":
        """Read the parsed JSON of docs/wire.md.

        Raises:
            ServerFailed: a key is missing.
        """
        try:
            groups = tuple(
                Group(str(group["name"]), str(group["kind"]), str(group["part"]), tuple(map(str, group["values"])))
                for group in content["groups"]
            )
            return cls(str(content["name"]), groups)
        except (KeyError, TypeError) as error:
            raise ServerFailed(f"the server's attribute schema cannot be read: {error!r}") from error

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each group's elements lie in the attribute vector."""
        ends = np.cumsum([group.size for group in self.groups]).tolist()
        return {group.name: slice(end - group.size, end) for group, end in zip(self.groups, ends, strict=True)}

    @property
    def size(self) -> int:
        """N, the length of the attribute vector."""
        return sum(group.size for group in self.groups)

    @property
    def elements(self) -> tuple[str, ...]:
        """Names of the N elements, as `group=value`."""
        return tuple(
            f"{group.name}={value}"
            for group in self.groups
            for value in (group.values[1:] if group.kind == "binary" else group.values)
        )

    def parse(self, statements: Statements) -> dict[str, tuple[str, ...]]:
        """The stated values per stated group; a group stated as `unknown` or None is left out.

        Raises:
            InvalidRequest: an unknown attribute or value; the message lists the valid ones.
        """
        for name in statements:
            if name not in self.slices:
                raise InvalidRequest(f"attribute {_not_one_of(name, tuple(self.slices))}")
        parsed = {group.name: group.parse(statements.get(group.name)) for group in self.groups}
        return {name: values for name, values in parsed.items() if values}

    def encode(self, statements: Statements) -> tuple[np.ndarray, np.ndarray]:
        """Turn statements into `attributes` and `known`, both float32 [N] of 0 and 1.

        A stated group is known in all of its elements; the rest is 0 in both.

        Raises:
            InvalidRequest: an unknown attribute or value.
        """
        attributes, known = np.zeros(self.size, np.float32), np.zeros(self.size, np.float32)
        stated = self.parse(statements)
        for group in self.groups:
            if group.name in stated:
                attributes[self.slices[group.name]] = group.encode(stated[group.name])
                known[self.slices[group.name]] = 1
        return attributes, known

    def predict(self, scores: np.ndarray) -> tuple[Prediction, ...]:
        """The most probable value of every group, from `scores` [N] in 0..1."""
        return tuple(group.predict(scores[self.slices[group.name]]) for group in self.groups)

    def agreement(self, statements: Statements, scores: np.ndarray, terms: np.ndarray) -> tuple[Agreement, ...]:
        """How each stated group fits a photo, from its `scores` [N] and distance `terms` [N]."""
        stated = self.parse(statements)
        return tuple(
            Agreement(
                group.name,
                "+".join(stated[group.name]),
                group.predict(scores[where]).value,
                group.probability(stated[group.name], scores[where]),
                float(terms[where].sum()),
            )
            for group in self.groups
            if group.name in stated
            for where in [self.slices[group.name]]
        )

    def describe(self) -> str:
        """One line a group: what may be stated."""
        width = max(len(group.name) for group in self.groups)
        return "\n".join(f"{group.name:<{width}}  {' | '.join(group.choices)}" for group in self.groups)


def parse_statements(words: Iterable[str]) -> dict[str, str]:
    """Turn `["gender=female", "hat=unknown"]` into `{"gender": "female", "hat": "unknown"}`.

    Raises:
        InvalidRequest: a word without `=`, or an attribute stated twice.
    """
    statements: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise InvalidRequest(f"{word!r} is not of the form attribute=value, for example gender=female")
        if name in statements:
            raise InvalidRequest(f"{name} is stated twice; join several values with a plus: {name}=a+b")
        statements[name] = value
    return statements


def _not_one_of(given: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, valid, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{given!r} is not known{hint}; valid: {', '.join(valid)}"
