"""New attribute vectors to train with: SAL's unseen ones, and plausible ones for the Multi-task Transformer."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from descry.trainer.labels import TrainingLabels, match_rows, positive_ratios
from descry.trainer.losses import IGNORE
from descry.trainer.schema import UNKNOWN, AttributeSchema

REJECTION_TRIES = 100
# Proposals are made by so many at a time, at most so often, each changing at most so many groups of a known category.
PROPOSALS, PROPOSAL_ROUNDS, MOST_CHANGES = 4096, 100, 4


class UnseenCombinations:
    """SAL's sampler of new attribute vectors (Cao et al., ECCV 2020, "Semantic augmentation for unseen classes").

    `paper`: each element outside the exclusive sets is 1 with its training frequency; each exclusive set is one trial
    over its values and "none of them", which keeps its own training frequency; the values share the rest in
    proportion to theirs. `released`, the published code: each exclusive set has exactly one value, in proportion to
    the frequencies (none if no row has one), and `int(mean number of ones - subtract)` other elements are 1, drawn one
    after the other without replacement in proportion to the frequencies.

    Neither form looks at what was seen: an "unseen" vector may be a training category, unless `reject_seen`.

    Args:
        attributes: label matrix uint8 [n, N] of 0, 1 and `UNKNOWN`, which does not count. A row is what frequencies
            are taken over: persons for SAL's Market-1501, images for its PETA.
        schema: of the N elements.
        form: `paper` or `released`.
        exclusive: sets of element indices of which at most one is 1; by default the schema's `choice` groups.
        subtract: of the form `released`: Market-1501 2, PETA 5.
        reject_seen: draw again what is a training category.

    Raises:
        ValueError: no such form, an element in two sets or outside 0..N-1, an element or set that nobody labelled, or a
            number of ones that the elements cannot have.
    """

    def __init__(
        self,
        attributes: np.ndarray,
        schema: AttributeSchema,
        *,
        form: str = "paper",
        exclusive: Sequence[Sequence[int]] | None = None,
        subtract: float = 0.0,
        reject_seen: bool = False,
    ) -> None:
        """Take the training frequencies."""
        if form not in ("paper", "released"):
            raise ValueError(f"form {form!r} is not one of paper, released")
        sets = choice_sets(schema) if exclusive is None else exclusive
        self.form, self.exclusive = form, [torch.tensor(members, dtype=torch.long) for members in sets]
        self.others = torch.tensor(_others(sets, schema.size), dtype=torch.long)
        self.frequencies = torch.from_numpy(positive_ratios(attributes))
        self.none = [_share_of_none(attributes[:, list(members)]) for members in sets]
        # The mean of SAL's 0/1 rows as a sum of frequencies: a whole number must not be missed by rounding.
        self.ones = int(self.frequencies.sum().item() - subtract + 1e-9)
        self.categories = TrainingLabels.of(attributes, schema).categories if reject_seen else None
        possible = int((self.frequencies[self.others] > 0).sum())
        if form == "released" and not 0 <= self.ones <= possible:
            raise ValueError(
                f"{self.frequencies.sum():.2f} ones a row less {subtract} is no number of ones for {possible} "
                "elements: choose another `subtract`"
            )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` vectors: uint8 [count, N] of 0 and 1, on the CPU, a function of the generator's state.

        Raises:
            ValueError: with `reject_seen`, when some are still training categories after a hundred tries.
        """
        rows = self._draw(count, generator)
        if self.categories is None:
            return rows
        for _ in range(REJECTION_TRIES):
            seen = match_rows(rows, self.categories) != IGNORE
            if not seen.any():
                return rows
            rows[seen] = self._draw(int(seen.sum()), generator)
        raise ValueError(
            f"after {REJECTION_TRIES} tries {int(seen.sum())} of {count} vectors are training categories still: there "
            "are hardly any others; set reject_seen=False"
        )

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        rows = torch.zeros(count, len(self.frequencies), dtype=torch.uint8)
        for members, none in zip(self.exclusive, self.none, strict=True):
            values = self._trial(members, none).expand(count, -1).multinomial(1, generator=generator)
            # Column "none" is past the last value and is cut off.
            one_hot = torch.zeros(count, len(members) + 1, dtype=torch.uint8).scatter_(1, values, 1)
            rows[:, members] = one_hot[:, :-1]
        frequencies = self.frequencies[self.others].expand(count, -1)
        if self.form == "paper":
            rows[:, self.others] = torch.bernoulli(frequencies, generator=generator).to(torch.uint8)
        elif self.ones:
            chosen = frequencies.multinomial(self.ones, generator=generator)
            rows.scatter_(1, self.others[chosen], 1)
        return rows

    def _trial(self, members: Tensor, none: float) -> Tensor:
        """Probabilities of the set's values and of none of them: [values + 1]."""
        values = self.frequencies[members]
        if not values.sum():
            return torch.cat([values, values.new_ones(1)])
        none = none if self.form == "paper" else 0.0
        return torch.cat([values / values.sum() * (1 - none), values.new_tensor([none])])


def choice_sets(schema: AttributeSchema) -> tuple[tuple[int, ...], ...]:
    """Element indices of each `choice` group of the schema."""
    return tuple(tuple(range(where.start, where.stop)) for group, where in schema if group.kind == "choice")


def _others(exclusive: Sequence[Sequence[int]], size: int) -> list[int]:
    members = [element for elements in exclusive for element in elements]
    wrong = [element for element in members if members.count(element) > 1 or not 0 <= element < size]
    if wrong:
        raise ValueError(f"exclusive: element {wrong[0]} is in two sets, or not one of 0..{size - 1}")
    return [element for element in range(size) if element not in members]


def _share_of_none(columns: np.ndarray) -> float:
    known = columns[(columns != UNKNOWN).all(axis=1)]
    if not len(known):
        raise ValueError(
            f"no row knows all {columns.shape[1]} elements of an exclusive set: label some, or leave the set out"
        )
    return float((known == 0).all(axis=1).mean())


class PlausibleCombinations:
    """New categories that could be people: additional attribute combinations (Multi-task Transformer, 2022).

    The paper says only that "additional reasonable attribute combinations" were used. What is reasonable, and how
    they are made, is this project's inference: a vector is plausible when every group has a pattern that training has,
    and every two of them occur together in some training category. New ones are training categories with one to four
    groups redrawn by the frequency of the groups' patterns.

    Args:
        attributes: uint8 [n, N], the training categories; or the label matrix itself, whose repeated rows then weigh
            in the frequencies. Rows with an unknown element do not count.
        schema: of the N elements.

    Raises:
        ValueError: no row has all attributes known.
    """

    def __init__(self, attributes: np.ndarray, schema: AttributeSchema) -> None:
        """Count which patterns of the groups occur, and which two occur together."""
        self.labels = TrainingLabels.of(attributes, schema)
        sizes = torch.tensor([len(patterns) for patterns in self.labels.patterns])
        self.sizes, self.offsets = sizes.tolist(), sizes.cumsum(0) - sizes
        self.known = self.labels.group_labels(self.labels.categories)
        present = self._one_hot(self.known)
        self.apart = (present.T @ present == 0).float()
        self.frequencies = (present * self.labels.counts[:, None]).sum(dim=0).split(self.sizes)

    def is_plausible(self, rows: Tensor) -> Tensor:
        """Which of `rows` uint8 [m, N] are plausible: bool [m]; an unknown element or an unseen pattern is not."""
        return self._plausible(self.labels.group_labels(rows))

    def generate(self, count: int, seed: int) -> Tensor:
        """Make up to `count` distinct plausible vectors that are no training category: uint8 [at most count, N].

        A function of the arguments alone. The number of rows is the number found: fewer than `count` when there are
        hardly more, which a bounded number of proposals decides.
        """
        generator = torch.Generator().manual_seed(seed)
        known = len(self.known)
        pool = self.known.numpy()
        for _ in range(PROPOSAL_ROUNDS):
            if len(pool) >= known + count:
                break
            proposed = self._propose(generator)
            pool = np.concatenate([pool, proposed[self._plausible(proposed)].numpy()])
            # In the order of discovery: what was known stays in front, and the cut below is no choice by value.
            pool = pool[np.sort(np.unique(pool, axis=0, return_index=True)[1])]
        found = torch.from_numpy(pool[known : known + count])
        return torch.cat([table[found[:, group]] for group, table in enumerate(self.labels.patterns)], dim=1)

    def _propose(self, generator: torch.Generator) -> Tensor:
        """Group labels int64 [PROPOSALS, G] of training categories with a few groups redrawn."""
        groups = len(self.sizes)
        start = self.labels.counts.double().multinomial(PROPOSALS, replacement=True, generator=generator)
        redrawn = torch.stack(
            [weights.multinomial(PROPOSALS, replacement=True, generator=generator) for weights in self.frequencies],
            dim=1,
        )
        order = torch.rand(PROPOSALS, groups, generator=generator).argsort(dim=1)
        changes = torch.randint(1, min(MOST_CHANGES, groups) + 1, (PROPOSALS, 1), generator=generator)
        # `order` is a random permutation a row, so its small entries are a random choice of groups.
        return torch.where(order < changes, redrawn, self.known[start])

    def _plausible(self, group_labels: Tensor) -> Tensor:
        one_hot = self._one_hot(group_labels)
        conflicts = (one_hot @ self.apart * one_hot).sum(dim=1)
        return (conflicts == 0) & (group_labels != IGNORE).all(dim=1)

    def _one_hot(self, group_labels: Tensor) -> Tensor:
        """[m, patterns of all groups], 1 at each group's pattern; an unknown one stands for the first."""
        one_hot = torch.zeros(len(group_labels), sum(self.sizes))
        return one_hot.scatter_(1, self.offsets + group_labels.clamp(min=0), 1)
