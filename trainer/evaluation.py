"""Everything that is measured of a checkpoint on a split: attribute search, recognition, error gaps."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from descry.trainer.config import FusionConfig
from descry.trainer.extraction import Extracted, encode_descriptions
from descry.trainer.fairness import recognition_by_value, search_by_value
from descry.trainer.methods import Method
from descry.trainer.metrics import (
    BLOCK,
    attribute_metrics,
    bootstrap_intervals,
    mean_metrics,
    query_metrics,
    recognition_metrics,
    search_metrics,
)
from descry.trainer.neighbourhood import average_neighbours
from descry.trainer.protocols import Queries, category_queries
from descry.trainer.retrieval import Fusion, embedding_distances, fit_fusion, fuse, par_distances
from descry.trainer.schema import UNKNOWN


def distance_blocks(
    method: Method, queries: Queries, gallery: Extracted, par_distance: str = "euclidean"
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Block by block of queries: their rows, PAR and embedding distances [B, G] before fusion.

    Each distinct description is encoded once.
    """
    distinct, which = queries.attributes.unique(dim=0, return_inverse=True)
    encoded = encode_descriptions(method, distinct, torch.ones_like(distinct))
    for start in range(0, len(which), BLOCK):
        rows = slice(start, start + BLOCK)
        stated = queries.attributes[rows].float()
        par = par_distances(stated, torch.ones_like(stated), gallery.scores, par_distance)
        yield rows, par, embedding_distances(encoded[which[rows]], gallery.embeddings)


def query_distances(
    method: Method, queries: Queries, gallery: Extracted, par_distance: str = "euclidean"
) -> tuple[Tensor, Tensor]:
    """PAR and embedding distances [Q, G] of complete descriptions, before fusion."""
    _, par, embedding = zip(*distance_blocks(method, queries, gallery, par_distance), strict=True)
    return torch.cat(par), torch.cat(embedding)


def measure_search(
    method: Method, queries: Queries, gallery: Extracted, fusion: Fusion, sweep: Sequence[float] = ()
) -> tuple[dict[str, Tensor], dict[float, Tensor]]:
    """`query_metrics` [Q, M] of each distance, and of the fused one with each weight of `sweep`."""
    measured: dict[str, list[Tensor]] = {"embedding": [], "par": [], "fused": []}
    swept: dict[float, list[Tensor]] = {weight: [] for weight in sweep}
    for rows, par, embedding in distance_blocks(method, queries, gallery, fusion.par_distance):
        truth = queries.truth(rows)
        distances = {"embedding": embedding, "par": par, "fused": fuse(par, embedding, fusion)}
        for name, values in distances.items():
            measured[name].append(query_metrics(values, *truth))
        for weight, blocks in swept.items():
            blocks.append(query_metrics(fuse(par, embedding, replace(fusion, par_weight=weight)), *truth))
    by_name = {name: torch.cat(blocks) for name, blocks in measured.items()}
    return by_name, {weight: torch.cat(blocks) for weight, blocks in swept.items()}


def choose_fusion(method: Method, queries: Queries, gallery: Extracted, candidates: FusionConfig) -> Fusion:
    """The constants with the best mAP of the fused distance on this gallery."""
    measured: list[tuple[float, Fusion]] = []
    for neighbours in candidates.neighbours:
        searched = average_neighbours(gallery, neighbours)
        distances = query_distances(method, queries, searched, candidates.par_distance)
        fusion = fit_fusion(*distances, queries.relevant, candidates.par_weights, candidates.par_distance)
        mAP = search_metrics(fuse(*distances, fusion), queries.relevant)["mAP"]
        measured.append((mAP, replace(fusion, neighbours=neighbours)))
    return max(measured, key=itemgetter(0))[1]


def evaluate_search(
    method: Method,
    gallery: Extracted,
    fusion: Fusion | FusionConfig,
    queries: Queries | None = None,
    sweep: Sequence[float] = (),
) -> dict[str, Any]:
    """Search metrics of the embedding, of the PAR head and of both fused, over all, seen and unseen categories.

    `intervals` has the 95 % interval of each over the queries.

    Args:
        method: encodes the descriptions.
        gallery: what it said of the gallery.
        fusion: the constants, or the candidates among which they are measured here.
        queries: None = the gallery's categories, without a gallery filter.
        sweep: further PAR weights to measure the fused distance with, over all categories.
    """
    queries = queries or category_queries(gallery.crops, method.labels.categories)
    if isinstance(fusion, FusionConfig):
        fusion = choose_fusion(method, queries, gallery, fusion)
    searched = average_neighbours(gallery, fusion.neighbours)
    groups = {"all": torch.ones_like(queries.seen), "seen": queries.seen, "unseen": ~queries.seen}
    measured, swept = measure_search(method, queries, searched, fusion, sweep)
    present = {which: rows for which, rows in groups.items() if rows.any()}
    table, intervals = (
        {name: {which: summarize(values[rows]) for which, rows in present.items()} for name, values in measured.items()}
        for summarize in (mean_metrics, bootstrap_intervals)
    )
    weights = [{"par_weight": weight, **mean_metrics(values)} for weight, values in swept.items()]
    return {
        "protocol": {"queries": queries.query_set, "gallery_filter": queries.gallery_filter},
        "search": table,
        "intervals": intervals,
        "attributes": {
            **attribute_metrics(gallery.scores, gallery.attributes, gallery.attributes != UNKNOWN),
            **recognition_metrics(gallery.scores, gallery.attributes, method.schema),
        },
        "fairness": {
            "search": search_by_value(measured["fused"], queries.attributes, method.schema),
            "recognition": recognition_by_value(gallery.scores, gallery.attributes, method.schema),
        },
        "fusion": asdict(fusion),
        **({"sweep": weights} if weights else {}),
    }
