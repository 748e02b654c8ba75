"""How a ranking is printed: one line a hit, or all that its distance is made of, or JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from descry.client.printing import print_table
from descry.client.results import Hit, Ranking
from descry.client.schema import Agreement

FRAMES_PRINTED = 5


def print_hits(hits: Sequence[Hit]) -> None:
    """One line a hit; per stated attribute `yes`, or what the photo shows, and the stated value's probability."""
    stated = tuple(f"{one.group}={one.stated}" for one in hits[0].agreement)
    rows = []
    for hit in hits:
        cells = tuple(f"{'yes' if one.agrees else one.predicted} {one.probability:.2f}" for one in hit.agreement)
        rows.append((str(hit.rank), f"{hit.distance:.4f}", hit.id, str(hit.metadata.get("camera", "-")), *cells))
    print_table(("rank", "distance", "id", "camera", *stated), rows)


def print_explained(hits: Sequence[Hit], weight: float) -> None:
    """Of each hit its summands, ranked with the attributes at `weight`, and what each stated attribute adds."""
    for hit in hits:
        chance = "" if hit.probability is None else f", probability {hit.probability:.2f}"
        print(f"{hit.rank}  {hit.id}{chance}")
        summands = f"{weight:g} x attributes {hit.par_distance:.4f} + appearance {hit.embedding_distance:.4f}"
        print(f"distance {hit.distance:.4f} = {summands}")
        if hit.frames:
            shown = ", ".join(f"{frame.id} {frame.distance:.4f}" for frame in hit.frames[:FRAMES_PRINTED])
            more = ", …" if len(hit.frames) > FRAMES_PRINTED else ""
            print(f"images {shown}{more}")
        if hit.agreement:
            print_table(*agreement_rows(hit.agreement))
        print()


def agreement_rows(agreement: Sequence[Agreement]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the table that says how a photo fits a description."""
    header = ("attribute", "stated", "photo shows", "agrees", "probability", "term")
    return header, [
        (
            one.group,
            one.stated,
            one.predicted,
            "yes" if one.agrees else "no",
            f"{one.probability:.2f}",
            f"{one.term:.3f}",
        )
        for one in agreement
    ]


def ranking_json(ranking: Ranking, elements: Sequence[str]) -> dict[str, Any]:
    """A ranking for programs; `elements` names the scores."""
    return {"verdict": ranking.verdict, "hits": [_hit_json(hit, elements) for hit in ranking]}


def agreement_json(one: Agreement) -> dict[str, Any]:
    """An agreement for programs."""
    return {**asdict(one), **rounded({"probability": one.probability, "term": one.term})}


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Numbers as they are printed."""
    return {name: round(value, 6) for name, value in values.items()}


def named_scores(scores: np.ndarray, elements: Sequence[str]) -> dict[str, float]:
    """Scores [N] by the names of their elements."""
    return rounded({name: float(score) for name, score in zip(elements, scores, strict=True)})


def _hit_json(hit: Hit, elements: Sequence[str]) -> dict[str, Any]:
    names = ("distance", "par_distance", "embedding_distance")
    return {
        "rank": hit.rank,
        "id": hit.id,
        **rounded({name: getattr(hit, name) for name in names}),
        "probability": None if hit.probability is None else round(hit.probability, 6),
        "metadata": dict(hit.metadata),
        "agreement": [agreement_json(one) for one in hit.agreement],
        "terms": named_scores(hit.terms, elements),
        "scores": named_scores(hit.scores, elements),
        "frames": [asdict(frame) for frame in hit.frames],
    }
