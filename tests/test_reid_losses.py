"""The losses of Cerberus against hand-written loops in float64, and at their edges."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from descry.trainer.losses import IGNORE
from descry.trainer.reid_losses import (
    batch_hard_triplet,
    boundary_margins,
    person_loss,
    prototype_regularization,
    semantic_guidance,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_guidance(features, prototypes, labels, margins):
    """Eq. 3, one part."""
    losses = []
    for feature, label in zip(features, labels.tolist(), strict=True):
        if label != IGNORE:
            cosine = feature @ prototypes[label] / (feature.norm() * prototypes[label].norm())
            losses.append(max(1 - margins[label].item() - cosine.item(), 0.0))
    return sum(losses) / len(losses)


def slow_triplet(features, persons):
    """Eq. 5, second summand, with the batch's hardest pairs (Hermans, Beyer, Leibe, 2017)."""
    losses = []
    for anchor in range(len(features)):
        if persons[anchor] == IGNORE:
            continue
        apart = [(features[anchor] - other).norm().item() for other in features]
        others = [row for row in range(len(features)) if row != anchor and persons[row] != IGNORE]
        same = [apart[row] for row in others if persons[row] == persons[anchor]]
        different = [apart[row] for row in others if persons[row] != persons[anchor]]
        if same and different:
            losses.append(math.log(1 + math.exp(max(same) - min(different))))
    return sum(losses) / len(losses) if losses else 0.0


def slow_regularization(prototypes, attributes, directions):
    """Eq. 7 and 8, pair by pair."""
    total = 0.0
    for m in range(len(prototypes)):
        for n in range(len(prototypes)):
            residual = torch.zeros_like(prototypes[0])
            for attribute in range(attributes.shape[1]):
                residual += directions[attribute] * (attributes[m, attribute] - attributes[n, attribute]).item()
            total += ((prototypes[m] - prototypes[n] - residual) ** 2).sum().item()
    return total


def test_the_guidance_is_equation_3():
    features, prototypes = draw(6, 5), draw(4, 5, seed=1)
    labels, margins = torch.tensor([0, 3, IGNORE, 1, 1, 2]), torch.tensor([0.0, 0.6, 1.2, 0.7]).double()
    ours = semantic_guidance(features, prototypes, labels, margins)
    assert ours.item() == pytest.approx(slow_guidance(features, prototypes, labels, margins), abs=1e-12)


def test_inside_the_margin_the_guidance_rests():
    prototypes = draw(2, 5).requires_grad_()
    features = (prototypes.detach()[[0, 1]] + 0.01).requires_grad_()
    loss = semantic_guidance(features, prototypes, torch.tensor([0, 1]), torch.full((2,), 0.6).double())
    loss.backward()
    assert loss == 0 and not features.grad.any() and not prototypes.grad.any()


def test_without_a_known_id_the_guidance_is_zero():
    loss = semantic_guidance(draw(2, 5), draw(3, 5), torch.tensor([IGNORE, IGNORE]), torch.zeros(3).double())
    assert loss == 0


def test_the_margins_lie_between_the_logarithms_of_beta_and_of_alpha_plus_beta():
    margins = boundary_margins(torch.tensor([0.0, 200.0, 751.0]), 751)
    expected = [math.log(1.8), math.log(0.4 * 200 / 751 + 1.8), math.log(2.2)]
    torch.testing.assert_close(margins, torch.tensor(expected))
    assert not boundary_margins(torch.tensor([0.0, 5.0]), 10, alpha=0, beta=1).any()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-1, 4), min_size=1, max_size=12), st.integers(0, 5))
def test_the_triplet_takes_the_hardest_pairs(persons, seed):
    features = draw(len(persons), 3, seed=seed)
    ours = batch_hard_triplet(features, torch.tensor(persons))
    assert ours.item() == pytest.approx(slow_triplet(features, persons), abs=1e-9)


def test_the_triplet_s_gradient_is_finite_where_images_coincide():
    features = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    loss = batch_hard_triplet(features, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2)) and torch.isfinite(features.grad).all()


def test_the_triplet_stays_finite_at_a_large_scale():
    assert torch.isfinite(batch_hard_triplet(1e6 * draw(8, 3).float(), torch.arange(8) // 2))


def test_the_person_loss_is_the_cross_entropy_over_known_persons():
    logits, persons = draw(4, 3), torch.tensor([2, IGNORE, 0, 1])
    expected = [-functional.log_softmax(logits[row], dim=0)[persons[row]].item() for row in (0, 2, 3)]
    assert person_loss(logits, persons).item() == pytest.approx(sum(expected) / 3)
    assert person_loss(logits, torch.full((4,), IGNORE)) == 0


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_regularization_is_the_sum_over_all_pairs(count):
    prototypes, directions = draw(count, 5), draw(3, 5, seed=1)
    attributes = (draw(count, 3, seed=2) > 0).to(torch.uint8)
    ours = prototype_regularization(prototypes, attributes, directions)
    reference = slow_regularization(prototypes, attributes.double(), directions)
    assert ours.item() == pytest.approx(reference, rel=1e-10, abs=1e-12)


def test_prototypes_that_are_sums_of_directions_are_regular():
    directions, attributes = draw(3, 5), (draw(8, 3, seed=2) > 0).to(torch.uint8)
    prototypes = attributes.double() @ directions + draw(1, 5, seed=3)
    assert prototype_regularization(prototypes, attributes, directions) == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize(
    "loss",
    [
        lambda features: semantic_guidance(
            features, draw(3, 4), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([0.1, 0.2, 0.3]).double()
        ),
        lambda features: batch_hard_triplet(features, torch.tensor([0, 0, 1, 1, 1])),
        lambda features: prototype_regularization(features, torch.eye(5)[:, :3].to(torch.uint8), draw(3, 4, seed=1)),
        lambda features: prototype_regularization(
            draw(6, 4), torch.randint(0, 2, (6, 5), generator=torch.Generator().manual_seed(0)), features
        ),
    ],
)
def test_the_gradients_are_those_of_finite_differences(loss):
    assert torch.autograd.gradcheck(loss, draw(5, 4, seed=4).requires_grad_())
