"""Losses that methods share: pure functions of tensors, constants named after the papers' symbols."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from descry.trainer.schema import UNKNOWN

IGNORE = -1
WEIGHTINGS = ("label_dependent", "attribute", "none")


def _full_precision(values: Tensor) -> Tensor:
    """`values` in float32 where they are of a smaller type: losses are never computed in less."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def masked_group_cross_entropy(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Sum over attribute groups of the softmax cross-entropy, mean over the known labels (ASMR supplement, Eq. 1).

    Args:
        logits: one [B, K_g] a group.
        labels: int64 [B, G], the class inside each group; `IGNORE` where unknown.

    Returns:
        A scalar; a group without a known label adds 0.
    """
    total = logits[0].new_zeros(())
    for group, scores in enumerate(logits):
        known = (labels[:, group] != IGNORE).sum().clamp(min=1)
        summed = F.cross_entropy(_full_precision(scores), labels[:, group], ignore_index=IGNORE, reduction="sum")
        total = total + summed / known
    return total


def modality_alignment(
    images: Tensor, categories: Tensor, labels: Tensor, *, sigma: float = 12.0, gamma: float = 0.2
) -> Tensor:
    """L_MA, the mean of `alignment_losses` over the images that have a category: a scalar, 0 when none has."""
    return mean_over(alignment_losses(images, categories, labels, sigma=sigma, gamma=gamma), labels != IGNORE)


def alignment_losses(
    images: Tensor, categories: Tensor, labels: Tensor, *, sigma: float = 12.0, gamma: float = 0.2
) -> Tensor:
    """Pull images to their category within an angular margin (ASMR, Eq. 2; ArcFace's hard branch included).

    Of image b: -log softmax_c(s_bc)[y_b], s_bc = sigma * phi(cos theta_bc) for c = y_b, sigma * cos theta_bc
    otherwise, phi(cos theta) = cos(theta + gamma), or cos theta - gamma sin(pi - gamma) where theta + gamma would
    pass pi.

    Args:
        images: [B, D] image embeddings; normalised here.
        categories: [C, D] embeddings of all training categories, and of any further negatives; normalised here.
        labels: int64 [B], the category of each image; `IGNORE` leaves the image out.
        sigma: scale of the logits.
        gamma: angular margin in radians.

    Returns:
        [B]; 0, and no gradient, for an image without a category.
    """
    cosine = F.normalize(_full_precision(images), dim=1) @ F.normalize(_full_precision(categories), dim=1).T
    known = labels != IGNORE
    column = labels.clamp(min=0)[:, None]
    positive = cosine.gather(1, column)
    # The clamp keeps the gradient of the square root finite when an image meets its category exactly.
    sine = (1 - positive.square()).clamp(min=1e-12).sqrt()
    shifted = positive * math.cos(gamma) - sine * math.sin(gamma)
    past_pi = positive <= math.cos(math.pi - gamma)
    shifted = torch.where(past_pi, positive - math.sin(math.pi - gamma) * gamma, shifted)
    losses = F.cross_entropy(sigma * cosine.scatter(1, column, shifted), column[:, 0], reduction="none")
    return torch.where(known, losses, torch.zeros_like(losses))


def mean_over(losses: Tensor, kept: Tensor) -> Tensor:
    """Mean of `losses` [B] over the images of `kept` bool [B]; 0 when there is none."""
    return (losses * kept).sum() / kept.sum().clamp(min=1)


def feedback_weights(losses: Tensor, kept: Tensor) -> Tensor:
    """How hard each image is for one task, to weigh it in the other (Multi-task Transformer, section 3).

    The paper says that samples with a high loss in one task get a higher weight in the other. The formula is our
    inference: the loss over its mean in the batch, without gradient, so that weights average 1.

    Args:
        losses: [B], not negative.
        kept: bool [B], the images that the losses are known of.

    Returns:
        [B]; 1 for an image without a loss, and for all when every loss is 0.
    """
    losses = losses.detach()
    mean = mean_over(losses, kept)
    return torch.where(kept & (mean > 0), losses / mean.clamp(min=torch.finfo(losses.dtype).tiny), 1.0)


def group_hamming(group_labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted Hamming distance d_ij = sum_k w_k [a_i^(k) != a_j^(k)] between categories (ASMR).

    Args:
        group_labels: int64 [C, G], the class of each category inside each group.
        weights: [G] importance of each group.

    Returns:
        [C, C], symmetric with a zero diagonal (to rounding).
    """
    columns, weighted = _weighted_one_hot(group_labels, weights)
    return weights.sum() - weighted @ columns.T


def _weighted_one_hot(group_labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """One-hot group labels [C, sum K_g], and the same times the weight of their group.

    Their product counts what agrees: no [C, C, G] tensor.
    """
    columns = [F.one_hot(labels).to(weights.dtype) for labels in group_labels.T]
    weighted = [weight * column for weight, column in zip(weights, columns, strict=True)]
    return torch.cat(columns, dim=1), torch.cat(weighted, dim=1)


def adaptive_semantic_margin(
    categories: Tensor, group_labels: Tensor, weights: Tensor, *, temperature: float, block: int = 256
) -> Tensor:
    """Make the cosines between categories follow their semantic affinity (ASMR's regulariser).

    L_ASMR = 2 / (C^2 - C) * sum_{i<j} (c_ij - mu - delta_ij)^2, c_ij the cosine of categories i and j, mu the mean of
    all c_ij, delta_ij = sigmoid(1 - d_ij / T), d_ij the weighted Hamming distance. Gradients reach c, mu and the
    weights.

    The square is expanded, so that the sums of c, c - delta and (c - delta)^2 suffice. They are taken over blocks of
    rows, each from its first row on: no tensor of C x C, and half of the pairs' work.

    Args:
        categories: [C, D] embeddings of all training categories; normalised here.
        group_labels: int64 [C, G].
        weights: [G].
        temperature: T; 10 for Market-1501's 10 groups, 8.5 for PETA's 17.
        block: rows computed at a time.

    Returns:
        A scalar; 0 for fewer than two categories.
    """
    unit = F.normalize(_full_precision(categories), dim=1)
    count = unit.shape[0]
    if count < 2:
        return unit.sum() * 0
    columns, weighted = _weighted_one_hot(group_labels, weights.to(unit.dtype))
    sums = [_sums_over_pairs(unit, columns, weighted, start, block, temperature) for start in range(0, count, block)]
    mean, difference, square = torch.stack(sums).sum(dim=0) / (count * (count - 1) / 2)
    return square - 2 * mean * difference + mean.square()


def _sums_over_pairs(
    unit: Tensor, columns: Tensor, weighted: Tensor, start: int, block: int, temperature: float
) -> Tensor:
    """Sums [3] of c, c - delta and (c - delta)^2 over the pairs i < j with i among `block` rows from `start`."""
    rows = slice(start, start + block)
    cosine = unit[rows] @ unit[start:].T
    distance = weighted.sum(dim=1)[rows, None] - weighted[rows] @ columns[start:].T
    difference = cosine - torch.sigmoid(1 - distance / temperature)
    below = torch.ones_like(cosine, dtype=torch.bool).tril()
    cosine, difference = cosine.masked_fill(below, 0), difference.masked_fill(below, 0)
    return torch.stack([cosine.sum(), difference.sum(), difference.square().sum()])


def imbalance_weights(labels: Tensor, ratios: Tensor, *, form: str = "label_dependent", sigma: float = 1.0) -> Tensor:
    """Weights of a binary cross-entropy that make up for rare attributes.

    `label_dependent` (DeepMAR: Li, Chen, Huang, ACPR 2015): exp((1 - r_j) / sigma^2) where y_ij = 1 and
    exp(r_j / sigma^2) where y_ij = 0. `attribute` (Multi-task Transformer, Eq. 3.1, whose w_j knows no label):
    exp(-r_j / sigma^2).

    Args:
        labels: uint8 [B, N] of 0, 1 and `UNKNOWN`.
        ratios: r, [N] share of ones of each attribute in training; see `positive_ratios`.
        form: one of the two above.
        sigma: the smaller, the stronger.

    Returns:
        [B, N] in the type of `ratios`; 0 where the label is unknown.

    Raises:
        ValueError: no such form.
    """
    if form == "label_dependent":
        exponent = torch.where(labels == 1, 1 - ratios, ratios)
    elif form == "attribute":
        exponent = -ratios
    else:
        raise ValueError(f"form {form!r} is not one of label_dependent, attribute")
    return (exponent / sigma**2).exp() * (labels != UNKNOWN)


def attribute_losses(logits: Tensor, labels: Tensor, ratios: Tensor, *, weighting: str = "label_dependent") -> Tensor:
    """Weighted binary cross-entropy of each image, summed over its known attributes (Multi-task Transformer, Eq. 3.1).

    The equation lacks the minus sign of the cross-entropy; it is here.

    Args:
        logits: [B, N].
        labels: uint8 [B, N] of 0, 1 and `UNKNOWN`.
        ratios: [N]; see `imbalance_weights`.
        weighting: a form of `imbalance_weights`, or `none`.

    Returns:
        [B]; the loss of a batch is their mean.

    Raises:
        ValueError: no such weighting.
    """
    logits, known = _full_precision(logits), labels != UNKNOWN
    weights = known.to(logits.dtype)
    if weighting != "none":
        weights = imbalance_weights(labels, ratios.to(logits.dtype), form=weighting)
    targets = (labels * known).to(logits.dtype)
    return (F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * weights).sum(dim=1)
