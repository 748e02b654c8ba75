"""Search by part of a description: how well it works as more and more attribute groups are stated.

    python -m descry.trainer.partial CHECKPOINT … [--split test] [--draws 3] [--seed 0] [--json] [--figure PNG]

Every complete category of the gallery states k random attribute groups, for k = 1 up to all; the rest is unknown. In
one draw a description keeps what it has stated while k grows. All images count, and the fused distance is the
checkpoint's, as a server computes it. Several checkpoints get the same descriptions, where they have the same dataset.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from descry.trainer.curves import DISTANCES, Chart, LineStyle, Point, spread
from descry.trainer.extraction import Extracted
from descry.trainer.imperfect import Study, first_groups, run_study, search_described
from descry.trainer.methods import Method
from descry.trainer.protocols import Queries, category_queries
from descry.trainer.retrieval import Fusion

# What counts as found, and how a figure names it.
TRUTHS = {"agreeing": "images that fit what is stated", "category": "images of the full description"}
STYLES: dict[str, LineStyle] = {"embedding": "--", "par": ":", "fused": "-"}


@dataclass(frozen=True)
class PartialPoint(Point):
    """One point of a curve.

    Attributes:
        stated: attribute groups that the descriptions state.
        truth: what is relevant: `agreeing`, every image whose labels are all that is stated (an unknown label is not),
            or `category`, the images of the full description.
    """

    stated: int
    truth: str


def agreeing_images(attributes: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """Whether the labels uint8 [G, N] of each image are all that each description [Q, N] states: bool [Q, G]."""
    ones, zeros = ((known & (attributes == value)).float() for value in (1, 0))
    contradictions = ones @ (labels != 1).float().T + zeros @ (labels != 0).float().T
    return contradictions == 0


def search_partially(
    method: Method, gallery: Extracted, queries: Queries, known: Tensor, fusion: Fusion
) -> dict[tuple[str, str], dict[str, float]]:
    """Search metrics by distance and truth of descriptions of which only `known`, bool [Q, N], is stated."""

    def truths(rows: slice) -> dict[str, Tensor]:
        agreeing = agreeing_images(queries.attributes[rows], known[rows], gallery.attributes)
        return {"agreeing": agreeing, "category": queries.truth(rows)[0]}

    return search_described(method, gallery, fusion, queries.attributes, known.float(), truths)


def measure_partial(
    method: Method, gallery: Extracted, fusion: Fusion, draws: int, seed: int, progress: bool = False
) -> tuple[PartialPoint, ...]:
    """The points of a method's curves; the descriptions are a function of gallery, `draws` and `seed` alone."""
    queries = category_queries(gallery.crops, method.labels.categories)
    groups = len(method.schema.groups)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.rand(len(queries.attributes), groups, generator=generator).argsort(dim=1) for _ in range(draws)]
    found: dict[tuple[int, str, str], list[dict[str, float]]] = defaultdict(list)
    steps = [(stated, places) for stated in range(1, groups + 1) for places in orders]
    for stated, places in tqdm(steps, desc="partial descriptions", disable=not progress, leave=False):
        known = first_groups(places, stated, method.schema)
        for (distance, truth), metrics in search_partially(method, gallery, queries, known, fusion).items():
            found[stated, distance, truth].append(metrics)
    return tuple(
        PartialPoint(stated, truth, distance=distance, **spread(metrics))
        for (stated, distance, truth), metrics in found.items()
    )


STUDY = Study(
    name="partial",
    summary=__doc__.splitlines()[0],
    measure=measure_partial,
    chart=Chart(
        rows={"stated": "stated", "truth": "relevant"},
        x=("stated", "attribute groups stated"),
        panel=("truth", TRUTHS),
        line=("distance", {name: (label, STYLES[name]) for name, label in DISTANCES.items()}),
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    return run_study(STUDY, arguments)


if __name__ == "__main__":
    sys.exit(main())
