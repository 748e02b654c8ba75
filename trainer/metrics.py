"""Metrics of the field: CMC and mAP of a search, and the PAR metrics, with unknown labels left out.

Ties are ranked by gallery position, the earlier image first.
"""

import math
from typing import Any

import torch
from torch import Tensor

from descry.trainer.schema import UNKNOWN, AttributeSchema

RANKS = (1, 5, 10)
SEARCH_METRICS = (*(f"rank{k}" for k in RANKS), "mAP", "mAP_trapezoid", "mINP")
# Queries that are ranked at a time: the order of 256 x 20 000 images takes 40 MB.
BLOCK = 256
RESAMPLES = 1000


def search_metrics(distances: Tensor, relevant: Tensor, ignored: Tensor | None = None) -> dict[str, float]:
    """CMC and mAP over all queries that have a relevant image; see `query_metrics` and `mean_metrics`."""
    return mean_metrics(query_metrics(distances, relevant, ignored))


def query_metrics(distances: Tensor, relevant: Tensor, ignored: Tensor | None = None) -> Tensor:
    """What each query's ranking is worth, block by block of queries.

    Args:
        distances: [Q, G], smaller is better.
        relevant: bool [Q, G].
        ignored: bool [Q, G], images that a query's ranking leaves out, relevant or not; None = none.

    Returns:
        float64 [Q, M], `SEARCH_METRICS`; see `rank_metrics`.
    """
    measured = [torch.empty(0, len(SEARCH_METRICS), dtype=torch.float64, device=distances.device)]
    for start in range(0, len(distances), BLOCK):
        rows = slice(start, start + BLOCK)
        block, right = distances[rows], relevant[rows]
        if ignored is not None:
            block, right = block.masked_fill(ignored[rows], torch.inf), right & ~ignored[rows]
        order = block.argsort(dim=1, stable=True)
        measured.append(rank_metrics(right.gather(1, order)))
    return torch.cat(measured)


def rank_metrics(hits: Tensor) -> Tensor:
    """Metrics of ranked lists, bool [Q, G], best image first: whether each is relevant.

    Returns:
        float64 [Q, M], `SEARCH_METRICS` in 0..1, NaN for a query without a relevant image. `rank1`, `rank5`, `rank10`:
        1 with a relevant image among the first k. `mAP`: average precision by the rectangle rule (SAL).
        `mAP_trapezoid`: by Market-1501's rule, the mean of the precision before and at each hit (ASMR). `mINP`: the
        inverse negative penalty, relevant images over the rank of the last of them (Ye et al., 2021).
    """
    total = hits.sum(dim=1)
    row, position = hits.nonzero(as_tuple=True)
    before = torch.arange(len(row), device=hits.device) - (total.cumsum(0) - total)[row]
    position = position.double()
    precision = (before + 1) / (position + 1)
    precision_before = torch.where(position > 0, before / position.clamp(min=1), torch.ones_like(position))
    undefined = torch.full((len(hits),), torch.nan, dtype=torch.float64, device=hits.device)
    first = undefined.index_put((row[before == 0],), position[before == 0])
    found = [torch.where(total > 0, (first < k).double(), undefined) for k in RANKS]
    averages = [
        torch.zeros_like(undefined).index_add(0, row, values) / total
        for values in (precision, (precision + precision_before) / 2)
    ]
    last = undefined.index_put((row[before == total[row] - 1],), position[before == total[row] - 1])
    return torch.stack([*found, *averages, total / (last + 1)], dim=1)


def mean_metrics(measured: Tensor) -> dict[str, float]:
    """Means of `query_metrics` [Q, M] over the queries that have a relevant image.

    Returns:
        Each of `SEARCH_METRICS`, in 0..1 and NaN without a query; `queries`: how many were averaged.
    """
    defined = measured[~measured[:, 0].isnan()]
    return {**dict(zip(SEARCH_METRICS, defined.mean(dim=0).tolist(), strict=True)), "queries": float(len(defined))}


def bootstrap_intervals(measured: Tensor, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % intervals of the means of `query_metrics` [Q, M]: percentiles over `RESAMPLES` draws of the queries.

    They say how much another set of queries of the same kind would move a mean, not what another training would.

    Returns:
        Lower and upper bound of each of `SEARCH_METRICS`, NaN without a query; the same for the same seed.
    """
    bounds = bootstrap_bounds(measured[~measured[:, 0].isnan()], seed).tolist()
    return {name: (low, high) for name, (low, high) in zip(SEARCH_METRICS, bounds, strict=True)}


def bootstrap_bounds(values: Tensor, seed: int = 0) -> Tensor:
    """95 % interval [M, 2] of the mean of each column of [n, M]; NaN where there is no row."""
    values = values.double().cpu()
    if not len(values):
        return torch.full((values.shape[1], 2), torch.nan, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(len(values), (len(values),), generator=generator) for _ in range(RESAMPLES)]
    means = torch.stack([values[rows].mean(dim=0) for rows in drawn])
    return means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype), dim=0).T


def attribute_metrics(scores: Tensor, labels: Tensor, known: Tensor) -> dict[str, float]:
    """PAR metrics at threshold 0.5 over known labels.

    Args:
        scores: [n, N] in 0..1.
        labels: [n, N] of 0 and 1.
        known: bool [n, N].

    Returns:
        `mA`: mean over attributes of the mean of the recall of positives and of negatives, over attributes that have
        both.
        `accuracy`, `precision`, `recall`: instance-based, mean over images. `F1`: mean over images of each image's F1.
        `known`: number of labels used. An image without a positive label or prediction scores 1 where the ratio is 0/0.
    """
    predicted, positive = (scores > 0.5) & known, (labels > 0.5) & known
    negative = ~positive & known
    positives, negatives = positive.sum(0), negative.sum(0)
    both = (positives > 0) & (negatives > 0)
    recall_positive = (predicted & positive).sum(0) / positives.clamp(min=1)
    recall_negative = (~predicted & negative).sum(0) / negatives.clamp(min=1)
    mean_accuracy = ((recall_positive + recall_negative) / 2)[both].double().mean().item()
    correct = (predicted & positive).sum(1)
    return {
        "mA": mean_accuracy,
        "accuracy": _mean_ratio(correct, (predicted | positive).sum(1)),
        "precision": _mean_ratio(correct, predicted.sum(1)),
        "recall": _mean_ratio(correct, positive.sum(1)),
        "F1": _mean_ratio(2 * correct, predicted.sum(1) + positive.sum(1)),
        "known": float(known.sum()),
    }


def _mean_ratio(numerator: Tensor, denominator: Tensor) -> float:
    ratio = torch.where(
        denominator > 0, numerator / denominator.clamp(min=1), torch.ones_like(numerator, dtype=torch.float)
    )
    return ratio.double().mean().item()


def recognize(scores: Tensor, schema: AttributeSchema) -> Tensor:
    """The attribute vectors that PAR scores say: uint8 [n, N] of [n, N] in 0..1.

    An element of a binary or multi group is 1 above 0.5. A choice is its largest element, or none of them where what
    the scores of the group leave of 1 is larger still.
    """
    said = (scores > 0.5).to(torch.uint8)
    for group, where in schema:
        if group.kind == "choice":
            largest, index = scores[:, where].max(dim=1)
            chosen = largest >= 1 - scores[:, where].sum(dim=1)
            said[:, where] = torch.nn.functional.one_hot(index, group.size).to(torch.uint8) * chosen[:, None]
    return said


def recognition_metrics(scores: Tensor, labels: Tensor, schema: AttributeSchema) -> dict[str, Any]:
    """How often what is recognized is right, per attribute group and per element (Cerberus, Table 3).

    Args:
        scores: [n, N] in 0..1.
        labels: uint8 [n, N]; 255 = unknown.
        schema: meaning of the N attributes.

    Returns:
        `groups`: by name, the share of images whose group is recognized completely right, over those whose group is
        known completely. `elements`: by name, the share of the known labels that are recognized right.
        `group_accuracy`, `element_accuracy`: their means, NaN without a known label. What nobody labelled is left out.
    """
    right, known = recognize(scores, schema) == labels, labels != UNKNOWN
    whole = {group.name: (right[:, where].all(dim=1), known[:, where].all(dim=1)) for group, where in schema}
    single = dict(zip(schema.elements, zip(right.T, known.T, strict=True), strict=True))
    groups, elements = _accuracies(whole), _accuracies(single)
    return {
        "group_accuracy": _mean(groups),
        "element_accuracy": _mean(elements),
        "groups": groups,
        "elements": elements,
    }


def _accuracies(judged: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    return {name: right[known].double().mean().item() for name, (right, known) in judged.items() if known.any()}


def _mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values) if values else math.nan
