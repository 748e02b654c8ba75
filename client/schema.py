"""The attribute schema as the server states it: descriptions in, vectors out, and scores explained back in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from descry.client.errors import InvalidRequest, ServerFailed
from descry.client.groups import Claim, Group, Prediction, not_one_of
from descry.client.statements import Statements

Claims = Mapping[str, Claim]


@dataclass(frozen=True)
class Agreement:
    """How one stated group fits a photo.

    Attributes:
        group: the stated group.
        stated: what was said of it, as on a command line; what several witnesses said is joined by ` / `.
        predicted: the value that the photo most probably has.
        probability: that the photo is as stated, in 0..1; of several witnesses the mean, weighted by their confidence.
        term: the group's share of the attribute distance before its root, >= 0; 0 is a perfect fit.
        agrees: whether the predicted value is as stated, by one witness at least.
    """

    group: str
    stated: str
    predicted: str
    probability: float
    term: float
    agrees: bool


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

    def parse(self, statements: Statements) -> dict[str, Claim]:
        """What is claimed of each stated group; a group that is left unknown is left out.

        Raises:
            InvalidRequest: an unknown attribute or value; the message lists the valid ones.
        """
        for name in statements:
            if name not in self.slices:
                raise InvalidRequest(f"attribute {not_one_of(name, tuple(self.slices))}")
        claims = {group.name: group.parse(statements.get(group.name)) for group in self.groups}
        return {name: claim for name, claim in claims.items() if claim}

    def encode(self, statements: Statements) -> tuple[np.ndarray, np.ndarray]:
        """Turn statements into `attributes`, 0 or 1, and `known`, 0..1, both float32 [N].

        What is not stated is 0 in both.

        Raises:
            InvalidRequest: an unknown attribute or value.
        """
        return self.encode_claims(self.parse(statements))

    def encode_claims(self, claims: Claims) -> tuple[np.ndarray, np.ndarray]:
        """As `encode`, of statements that are parsed."""
        attributes, known = np.zeros(self.size, np.float32), np.zeros(self.size, np.float32)
        for group in self.groups:
            if group.name in claims:
                where = self.slices[group.name]
                attributes[where], known[where] = group.elements(claims[group.name])
        return attributes, known

    def predict(self, scores: np.ndarray, calibrated: np.ndarray | None = None) -> tuple[Prediction, ...]:
        """The most probable value of every group by `scores`, its probability by `calibrated`; both [N] in 0..1."""
        calibrated = scores if calibrated is None else calibrated
        return tuple(
            group.predict(scores[where], calibrated[where])
            for group in self.groups
            for where in [self.slices[group.name]]
        )

    def agreement(self, statements: Statements, scores: np.ndarray, terms: np.ndarray) -> tuple[Agreement, ...]:
        """How each stated group fits a photo, from its `scores` [N] and distance `terms` [N]."""
        return self.explain([self.parse(statements)], scores, terms, scores)

    def explain(
        self, witnesses: Sequence[Claims], scores: np.ndarray, terms: np.ndarray, calibrated: np.ndarray
    ) -> tuple[Agreement, ...]:
        """As `agreement`, of one or more parsed descriptions; probabilities are by the `calibrated` scores [N]."""
        explained = []
        for group in self.groups:
            claims = [claims[group.name] for claims in witnesses if group.name in claims]
            if not claims:
                continue
            where = self.slices[group.name]
            shown = group.shown(scores[where])
            probabilities = [group.claimed(claim, calibrated[where]) for claim in claims]
            explained.append(
                Agreement(
                    group.name,
                    " / ".join(dict.fromkeys(claim.text for claim in claims)),
                    "+".join(shown),
                    float(np.average(probabilities, weights=[claim.confidence for claim in claims])),
                    float(terms[where].sum()),
                    any(claim.accepts(shown) for claim in claims),
                )
            )
        return tuple(explained)

    def describe(self) -> str:
        """One line a group: what may be stated."""
        width = max(len(group.name) for group in self.groups)
        return "\n".join(f"{group.name:<{width}}  {' | '.join(group.choices)}" for group in self.groups)
