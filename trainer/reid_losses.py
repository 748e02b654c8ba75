"""The losses of Cerberus: pure functions of tensors, constants named after the paper's symbols."""

import torch
import torch.nn.functional as F
from torch import Tensor

from descry.trainer.losses import IGNORE, mean_over


def semantic_guidance(features: Tensor, prototypes: Tensor, labels: Tensor, margins: Tensor) -> Tensor:
    """Pull each representation to the prototype of its semantic ID, up to a margin: one part's summand of Eq. 3.

    Mean over the images of max(1 - m_g - cos(f, p_g), 0).

    Args:
        features: [B, d], representations of one part.
        prototypes: [S, d].
        labels: int64 [B], the semantic ID of each image; `IGNORE` leaves the image out.
        margins: [S], m of each ID.

    Returns:
        A scalar; 0 when no ID is known.
    """
    known, chosen = labels != IGNORE, labels.clamp(min=0)
    cosine = F.cosine_similarity(features, prototypes[chosen], dim=1)
    return mean_over((1 - margins[chosen] - cosine).clamp(min=0), known)


def boundary_margins(persons: Tensor, total: Tensor | int, *, alpha: float = 0.4, beta: float = 1.8) -> Tensor:
    """m_g = ln(alpha * N_g / N + beta) (Eq. 4): the more persons share an ID, the looser.

    Args:
        persons: [S], N_g, training persons of each ID.
        total: N, all training persons.
        alpha: slope.
        beta: bias; with alpha = 0, beta = 1 is no margin.

    Returns:
        float [S].
    """
    return torch.log(alpha * persons / total + beta)


def person_loss(logits: Tensor, persons: Tensor) -> Tensor:
    """-log p(y | f) (Eq. 5), mean over the images whose person is known; 0 when none is.

    Args:
        logits: [B, P].
        persons: int64 [B], `IGNORE` where unknown.
    """
    losses = F.cross_entropy(logits, persons, ignore_index=IGNORE, reduction="none")
    return mean_over(losses, persons != IGNORE)


def batch_hard_triplet(features: Tensor, persons: Tensor) -> Tensor:
    """Soft-margin triplet loss with the hardest pairs of the batch: the second summand of Eq. 5.

    Mean over the anchors of ln(1 + exp(d(x, p) - d(x, n))): p the farthest image of the anchor's person, n the nearest
    of another one, d the Euclidean distance.

    Args:
        features: [B, d].
        persons: int64 [B]; `IGNORE` is nobody: neither anchor nor pair.

    Returns:
        A scalar; anchors without a second image or without another person are left out, and 0 remains when all are.
    """
    squares = features.square().sum(dim=1)
    squared = squares[:, None] + squares - 2 * features @ features.T
    # The clamp keeps the gradient of the square root finite where two images coincide.
    distances = squared.clamp(min=1e-12).sqrt()
    known = persons != IGNORE
    pairs = known[:, None] & known & ~torch.eye(len(persons), dtype=torch.bool, device=persons.device)
    same = persons[:, None] == persons
    positive, negative = pairs & same, pairs & ~same
    farthest = distances.masked_fill(~positive, -torch.inf).amax(dim=1)
    nearest = distances.masked_fill(~negative, torch.inf).amin(dim=1)
    usable = positive.any(dim=1) & negative.any(dim=1)
    losses = F.softplus(torch.where(usable, farthest - nearest, 0.0))
    return mean_over(losses, usable)


def prototype_regularization(prototypes: Tensor, attributes: Tensor, directions: Tensor) -> Tensor:
    """Make prototypes differ as their attributes do: L_reg of one part (Eq. 7, 8).

    sum_m sum_n |p_m - p_n - sum_l v_l (A_m(l) - A_n(l))|^2. With q = p - A v the summand is |q_m - q_n|^2, and the
    sum is 2 S sum_m |q_m - mean q|^2: no pair is formed.

    Args:
        prototypes: [S, d].
        attributes: [S, L] of 0 and 1, A.
        directions: [L, d], v.

    Returns:
        A scalar.
    """
    rest = prototypes - attributes.to(prototypes.dtype) @ directions
    return 2 * len(rest) * (rest - rest.mean(dim=0)).square().sum()
