"""Partial queries for methods whose attribute encoder takes a complete vector (docs/methods.md, partial queries).

The unknown attributes are completed from the training co-occurrence given the known ones.
"""

import torch
from torch import Tensor

COMPLETIONS = 32
# A category that contradicts one more stated element is e^-8 as likely: agreement goes before frequency.
MISMATCH_PENALTY = 8.0


def complete_attributes(attributes: Tensor, known: Tensor, categories: Tensor, counts: Tensor) -> Tensor:
    """Fill the unknown elements from 32 training categories drawn given the known ones; deterministic.

    p(category) is proportional to its training count times exp(-8 * stated elements that it contradicts). The draws
    are the 32 mid-quantiles of that distribution over the categories in lexicographic order (systematic sampling).

    Args:
        attributes: float [B, N], 0 or 1; ignored where unknown.
        known: float [B, N], 1 where stated.
        categories: [C, N] of 0 and 1.
        counts: [C] training images of each category.

    Returns:
        float [B, 32, N]: equal to `attributes` wherever `known`.
    """
    table = categories.to(attributes.dtype)
    mismatches = (known * attributes) @ (1 - table).T + (known * (1 - attributes)) @ table.T
    probability = torch.softmax(counts.to(attributes.dtype).log() - MISMATCH_PENALTY * mismatches, dim=1)
    quantiles = (torch.arange(COMPLETIONS, device=attributes.device, dtype=attributes.dtype) + 0.5) / COMPLETIONS
    cumulative = probability.cumsum(dim=1)
    cumulative = cumulative / cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, quantiles.expand(attributes.shape[0], COMPLETIONS).contiguous())
    completed = table[drawn.clamp(max=table.shape[0] - 1)]
    return torch.where(known.unsqueeze(1) > 0, attributes.unsqueeze(1), completed)
