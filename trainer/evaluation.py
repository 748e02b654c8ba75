"""Everything that is measured of a checkpoint on a split: attribute search, recognition, error gaps."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from descry.trainer.extraction import Extracted, description_distances
from descry.trainer.fairness import recognition_by_value, search_by_value
from descry.trainer.methods import Method
from descry.trainer.metrics import (
    attribute_metrics,
    bootstrap_intervals,
    mean_metrics,
    query_metrics,
    recognition_metrics,
)
from descry.trainer.protocols import Queries, category_queries
from descry.trainer.retrieval import Fusion, fit_fusion, fuse
from descry.trainer.schema import UNKNOWN


def query_distances(method: Method, queries: Queries, gallery: Extracted) -> tuple[Tensor, Tensor]:
    """PAR and embedding distances [Q, G] of complete descriptions, before fusion; each distinct one is encoded once."""
    distinct, which = queries.attributes.unique(dim=0, return_inverse=True)
    par, embedding = description_distances(method, distinct, torch.ones_like(distinct), gallery)
    return par[which], embedding[which]


def evaluate_search(
    method: Method,
    gallery: Extracted,
    fusion: Fusion | None,
    par_weights: Sequence[float] = (),
    queries: Queries | None = None,
    sweep: Sequence[float] = (),
) -> dict[str, Any]:
    """Search metrics of the embedding, of the PAR head and of both fused, over all, seen and unseen categories.

    `intervals` has the 95 % interval of each over the queries.

    Args:
        method: encodes the descriptions.
        gallery: what it said of the gallery.
        par_weights: candidates when `fusion` is None.
        fusion: the constants; None measures them here, with the best of `par_weights`.
        queries: None = the gallery's categories, without a gallery filter.
        sweep: further PAR weights to measure the fused distance with, over all categories.
    """
    queries = queries or category_queries(gallery.crops, method.labels.categories)
    par, embedding = query_distances(method, queries, gallery)
    fusion = fusion or fit_fusion(par, embedding, queries.relevant, par_weights)
    groups = {"all": torch.ones_like(queries.seen), "seen": queries.seen, "unseen": ~queries.seen}
    table, intervals, measured_by = {}, {}, {}
    for name, distances in {"embedding": embedding, "par": par, "fused": fuse(par, embedding, fusion)}.items():
        measured = query_metrics(distances, queries.relevant, queries.ignored)
        measured_by[name] = measured
        table[name] = {which: mean_metrics(measured[rows]) for which, rows in groups.items() if rows.any()}
        intervals[name] = {which: bootstrap_intervals(measured[groups[which]]) for which in table[name]}
    swept = []
    for weight in sweep:
        distances = fuse(par, embedding, replace(fusion, par_weight=weight))
        measured = query_metrics(distances, queries.relevant, queries.ignored)
        swept.append({"par_weight": weight, **mean_metrics(measured)})
    return {
        "protocol": {"queries": queries.query_set, "gallery_filter": queries.gallery_filter},
        "search": table,
        "intervals": intervals,
        "attributes": {
            **attribute_metrics(gallery.scores, gallery.attributes, gallery.attributes != UNKNOWN),
            **recognition_metrics(gallery.scores, gallery.attributes, method.schema),
        },
        "fairness": {
            "search": search_by_value(measured_by["fused"], queries.attributes, method.schema),
            "recognition": recognition_by_value(gallery.scores, gallery.attributes, method.schema),
        },
        "fusion": asdict(fusion),
        **({"sweep": swept} if swept else {}),
    }
