"""Metrics of the field: CMC and mAP of a search, and the PAR metrics, with unknown labels left out.

Ties are ranked by gallery position, the earlier image first.
"""

import torch
from torch import Tensor

RANKS = (1, 5, 10)


def search_metrics(distances: Tensor, relevant: Tensor, ignored: Tensor | None = None) -> dict[str, float]:
    """CMC and mAP over all queries that have a relevant image.

    Args:
        distances: [Q, G], smaller is better.
        relevant: bool [Q, G].
        ignored: bool [Q, G], images that a query's ranking leaves out, relevant or not; None = none.

    Returns:
        `rank1`, `rank5`, `rank10`: share of queries with a relevant image among the first k.
        `mAP`: mean of the average precision by the rectangle rule (SAL).
        `mAP_trapezoid`: by Market-1501's rule, the mean of the precision before and at each hit (ASMR).
        `queries`: how many queries were averaged. All metrics are in 0..1, and NaN without a query.
    """
    if ignored is not None:
        distances, relevant = distances.masked_fill(ignored, torch.inf), relevant & ~ignored
    order = distances.argsort(dim=1, stable=True)
    hits = relevant.gather(1, order)
    hits = hits[hits.any(dim=1)].double()
    found = hits.cumsum(dim=1)
    position = torch.arange(1, hits.shape[1] + 1, device=hits.device, dtype=torch.float64)
    total = found[:, -1]
    precision = found / position
    before = torch.where(position > 1, (found - hits) / (position - 1).clamp(min=1), torch.ones_like(found))
    cmc = {f"rank{k}": (found[:, min(k, found.shape[1]) - 1] > 0).double().mean().item() for k in RANKS}
    return {
        **cmc,
        "mAP": ((precision * hits).sum(1) / total).mean().item(),
        "mAP_trapezoid": (((precision + before) / 2 * hits).sum(1) / total).mean().item(),
        "queries": float(len(hits)),
    }


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
