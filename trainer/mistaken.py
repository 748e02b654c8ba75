"""Search by wrong descriptions: what is still found where a witness is mistaken, and what it helps to be unsure.

    python -m descry.trainer.mistaken CHECKPOINT … [--split test] [--draws 3] [--seed 0] [--json] [--figure PNG]

Every complete category of the gallery states all attribute groups, m = 0 to 3 random ones of them wrongly: with another
value that the training labels have of that group, each as likely. In one draw a description keeps its mistakes while m
grows. Relevant are the images of the true category.

The witness states the mistaken groups with a confidence, and everything else for certain: 1 does not know to be wrong,
0.5 is unsure of exactly what is wrong, 0 leaves it out. `descry.trainer.confidence` says what that does to a distance.
All images count, and the fused distance is the checkpoint's, as a server computes it. Several checkpoints get the same
descriptions, where they have the same dataset.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from descry.trainer.curves import DISTANCES, Chart, LineStyle, Point, spread
from descry.trainer.extraction import Extracted
from descry.trainer.imperfect import Study, first_groups, run_study, search_described
from descry.trainer.methods import Method
from descry.trainer.protocols import category_queries
from descry.trainer.retrieval import Fusion

MISTAKES = 3
# How confident of the mistaken groups a witness is, and how a figure shows it.
CONFIDENCES: dict[float, tuple[str, LineStyle]] = {
    1.0: ("mistakes stated as certain", "-"),
    0.5: ("unsure of them (confidence 0.5)", "--"),
    0.0: ("left out", ":"),
}


@dataclass(frozen=True)
class MistakenPoint(Point):
    """One point of a curve.

    Attributes:
        mistaken: attribute groups that the descriptions state wrongly.
        confidence: with which they state these, in 0..1.
    """

    mistaken: int
    confidence: float


@dataclass(frozen=True)
class Mistakes:
    """What witnesses could say instead.

    Attributes:
        values: uint8 [Q, N], of every group another value than the true one.
        places: int64 [Q, groups], in which order the groups are mistaken; those that have no other value come last.
        possible: int64 [Q], how many groups have another value.
    """

    values: Tensor
    places: Tensor
    possible: Tensor


def draw_mistakes(described: Tensor, patterns: Sequence[Tensor], generator: torch.Generator) -> Mistakes:
    """Draw mistakes for descriptions uint8 [Q, N].

    Args:
        described: the truth.
        patterns: of every group uint8 [K, size], the values that it may have.
        generator: on the CPU.
    """
    values, possible = [], []
    for truth, pattern in zip(described.split([pattern.shape[1] for pattern in patterns], 1), patterns, strict=True):
        other = (pattern != truth[:, None]).any(dim=2)
        has_other = other.any(dim=1, keepdim=True)
        drawn = torch.multinomial((other | ~has_other).float(), 1, generator=generator)[:, 0]
        values.append(torch.where(has_other, pattern[drawn], truth))
        possible.append(has_other)
    changeable = torch.cat(possible, dim=1)
    order = torch.rand(changeable.shape, generator=generator).masked_fill(~changeable, 2.0).argsort(dim=1)
    return Mistakes(torch.cat(values, dim=1), order.argsort(dim=1), changeable.sum(dim=1))


def measure_mistaken(
    method: Method, gallery: Extracted, fusion: Fusion, draws: int, seed: int, progress: bool = False
) -> tuple[MistakenPoint, ...]:
    """The points of a method's curves, up to `MISTAKES` or as many as every description can have.

    The descriptions are a function of gallery, training labels, `draws` and `seed` alone.
    """
    queries = category_queries(gallery.crops, method.labels.categories)
    generator = torch.Generator().manual_seed(seed)
    patterns = [pattern.cpu() for pattern in method.labels.patterns]
    drawn = [draw_mistakes(queries.attributes, patterns, generator) for _ in range(draws)]
    most = min(MISTAKES, int(drawn[0].possible.min()))
    # Without a mistake all draws are the same.
    steps = [(m, c, one) for m in range(most + 1) for c in CONFIDENCES for one in (drawn if m else drawn[:1])]
    found: dict[tuple[int, float, str], list[dict[str, float]]] = defaultdict(list)
    for mistaken, confidence, mistakes in tqdm(steps, desc="wrong descriptions", disable=not progress, leave=False):
        wrong = first_groups(mistakes.places, mistaken, method.schema)
        stated = torch.where(wrong, mistakes.values, queries.attributes)
        certainty = torch.where(wrong, confidence, 1.0)
        measured = search_described(
            method, gallery, fusion, stated, certainty, lambda rows: {"category": queries.truth(rows)[0]}
        )
        for (distance, _), metrics in measured.items():
            found[mistaken, confidence, distance].append(metrics)
    return tuple(
        MistakenPoint(mistaken, confidence, distance=distance, **spread(metrics))
        for (mistaken, confidence, distance), metrics in found.items()
    )


STUDY = Study(
    name="mistaken",
    summary=__doc__.splitlines()[0],
    measure=measure_mistaken,
    chart=Chart(
        rows={"mistaken": "mistaken", "confidence": "confidence"},
        x=("mistaken", "attribute groups mistaken"),
        panel=("distance", DISTANCES),
        line=("confidence", CONFIDENCES),
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    return run_study(STUDY, arguments)


if __name__ == "__main__":
    sys.exit(main())
