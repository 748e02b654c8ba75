"""Losses of symbiotic adversarial learning (Cao, Wang, Tao, ECCV 2020): pure functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor

from descry.trainer.losses import IGNORE
from descry.trainer.schema import UNKNOWN

ADVERSARIAL = ("cross_entropy", "double_sigmoid")
GAMES = ("non_saturating", "minimax")
DISTANCES = ("norm", "mean_square")
# The released code smooths the targets of its one-class discriminators as if they were labels: fake means 0.1.
RELEASED_FAKE_TARGET = 0.1


def category_loss(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Softmax cross-entropy over the training categories (Eq. 2), mean over the rows that have one.

    Args:
        logits: [B, C].
        labels: int64 [B]; `IGNORE` leaves the row out.
        smoothing: share of the target that is spread evenly over all categories.

    Returns:
        A scalar; 0 when no row has a category.
    """
    summed = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
    return summed / (labels != IGNORE).sum().clamp(min=1)


def attribute_loss(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Sigmoid cross-entropy (Eq. 3) summed over the known attributes, mean over the rows.

    Args:
        logits: [B, N].
        labels: uint8 [B, N] of 0, 1 and `UNKNOWN`, which gives no loss.
        smoothing: s of the targets (1 - s) y + s / N.

    Returns:
        A scalar.
    """
    known = labels != UNKNOWN
    targets = (1 - smoothing) * (labels * known).to(logits.dtype) + smoothing / logits.shape[1]
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (losses * known).sum(dim=1).mean()


def adversarial_loss(logits: Tensor, real: bool, *, form: str = "cross_entropy") -> Tensor:
    """What a discriminator pays for rows that are all real, or all fake (Eq. 4, 8, 9): mean over the rows.

    `cross_entropy`: -log D for real rows, -log(1 - D) for fake ones, D = sigmoid(logits). `double_sigmoid`, the
    released code: the cross-entropy of sigmoid(D) with the target 1 or 0.1.

    Args:
        logits: [B], before the sigmoid.
        real: which they are said to be.
        form: one of `ADVERSARIAL`.
    """
    if form == "cross_entropy":
        return F.softplus(-logits if real else logits).mean()
    outputs = logits.sigmoid()
    target = torch.full_like(outputs, 1.0 if real else RELEASED_FAKE_TARGET)
    return F.binary_cross_entropy_with_logits(outputs, target)


def generator_loss(logits: Tensor, *, form: str = "cross_entropy", game: str = "non_saturating") -> Tensor:
    """What a generator pays for the discriminator's `logits` [B] of its rows.

    `non_saturating`: as if the rows were real. `minimax` (Eq. 4, 8, 9 as written): what the discriminator pays for
    them as fake, negated, whose gradient vanishes when the discriminator is sure.
    """
    if game == "minimax":
        return -adversarial_loss(logits, False, form=form)
    return adversarial_loss(logits, True, form=form)


def row_distance(first: Tensor, second: Tensor, *, form: str = "norm") -> Tensor:
    """Distance of paired rows [B, D], a scalar (Eq. 5, 6).

    `norm`: the Euclidean norm of their difference, mean over the rows. `mean_square` (released code): mean over rows
    and columns of the squared difference.
    """
    if form == "norm":
        return torch.linalg.vector_norm(first - second, dim=1).mean()
    return F.mse_loss(first, second)


def discriminator_accuracy(real: Tensor, fake: Tensor) -> Tensor:
    """Mean of the shares of real and of fake rows, by their logits [n] and [m], that are told right; 0.5 is chance."""
    return ((real > 0).float().mean() + (fake <= 0).float().mean()) / 2
