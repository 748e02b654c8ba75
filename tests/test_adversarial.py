"""SAL's losses against slow hand-written references."""

import math

import pytest
import torch

from descry.trainer.adversarial import (
    adversarial_loss,
    attribute_loss,
    category_loss,
    discriminator_accuracy,
    generator_loss,
    row_distance,
)
from descry.trainer.losses import IGNORE
from descry.trainer.schema import UNKNOWN


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def cross_entropy(probability, target):
    return -target * math.log(probability) - (1 - target) * math.log(1 - probability)


def category_by_hand(logits, labels, smoothing):
    losses = []
    for row, label in zip(logits, labels, strict=True):
        if label == IGNORE:
            continue
        total = math.log(sum(math.exp(value) for value in row))
        targets = [smoothing / len(row) + (1 - smoothing) * (index == label) for index in range(len(row))]
        losses.append(sum(target * (total - value) for target, value in zip(targets, row, strict=True)))
    return sum(losses) / len(losses)


def attributes_by_hand(logits, labels, smoothing):
    total = 0.0
    for row, wanted in zip(logits, labels, strict=True):
        for value, label in zip(row, wanted, strict=True):
            if label != UNKNOWN:
                total += cross_entropy(sigmoid(value), (1 - smoothing) * label + smoothing / len(row))
    return total / len(logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_category_loss_equals_the_loop(smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 5), torch.tensor([0, IGNORE, 4, 2, 2, IGNORE, 1])
    expected = category_by_hand(logits.tolist(), labels.tolist(), smoothing)
    assert category_loss(logits, labels, smoothing=smoothing).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_attribute_loss_equals_the_loop(smoothing):
    torch.manual_seed(1)
    logits = 3 * torch.randn(4, 6)
    labels = torch.randint(0, 2, (4, 6), dtype=torch.uint8)
    labels[1, 2] = labels[3, 0] = UNKNOWN
    expected = attributes_by_hand(logits.tolist(), labels.tolist(), smoothing)
    assert attribute_loss(logits, labels, smoothing=smoothing).item() == pytest.approx(expected, rel=1e-5)


def test_unknown_labels_give_no_loss_and_no_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    labels = torch.ones(3, 4, dtype=torch.uint8)
    labels[:, 1] = UNKNOWN
    loss = attribute_loss(logits, labels, smoothing=0.1) + category_loss(logits, torch.full((3,), IGNORE))
    loss.backward()
    assert logits.grad[:, 1].abs().max() == 0 and logits.grad[:, 0].abs().min() > 0
    assert category_loss(logits, torch.full((3,), IGNORE)).item() == 0


@pytest.mark.parametrize("real", [True, False])
def test_adversarial_loss_equals_the_loop(real):
    logits = torch.tensor([-3.0, -0.2, 0.0, 1.5])
    paper = sum(cross_entropy(sigmoid(value), float(real)) for value in logits.tolist()) / 4
    released = sum(cross_entropy(sigmoid(sigmoid(value)), 1.0 if real else 0.1) for value in logits.tolist()) / 4
    assert adversarial_loss(logits, real).item() == pytest.approx(paper, rel=1e-5)
    assert adversarial_loss(logits, real, form="double_sigmoid").item() == pytest.approx(released, rel=1e-5)


def test_generators_pay_for_rows_that_are_told_apart():
    logits = torch.tensor([-2.0, 0.5])
    outputs = [sigmoid(value) for value in logits.tolist()]
    assert generator_loss(logits).item() == pytest.approx(-sum(math.log(value) for value in outputs) / 2, rel=1e-5)
    minimax = sum(math.log(1 - value) for value in outputs) / 2
    assert generator_loss(logits, game="minimax").item() == pytest.approx(minimax, rel=1e-5)


@pytest.mark.parametrize("form", ["cross_entropy", "double_sigmoid"])
def test_adversarial_loss_is_finite_for_a_discriminator_that_is_sure(form):
    logits = torch.tensor([1e4, -1e4], requires_grad=True)
    (adversarial_loss(logits, True, form=form) + adversarial_loss(logits, False, form=form)).backward()
    assert torch.isfinite(logits.grad).all()


def test_row_distance_equals_the_loop():
    torch.manual_seed(2)
    first, second = torch.randn(5, 3), torch.randn(5, 3)
    squares = [
        [(a - b) ** 2 for a, b in zip(row, other, strict=True)]
        for row, other in zip(first.tolist(), second.tolist(), strict=True)
    ]
    assert row_distance(first, second).item() == pytest.approx(sum(math.sqrt(sum(row)) for row in squares) / 5)
    mean = sum(sum(row) for row in squares) / 15
    assert row_distance(first, second, form="mean_square").item() == pytest.approx(mean)


def test_equal_rows_have_distance_zero_and_a_finite_gradient():
    rows = torch.ones(2, 3, requires_grad=True)
    loss = row_distance(rows, torch.ones(2, 3))
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(rows.grad).all()


def test_discriminator_accuracy_counts_both_kinds_alike():
    real, fake = torch.tensor([1.0, 2.0, -1.0, 3.0]), torch.tensor([-1.0, 1.0])
    assert discriminator_accuracy(real, fake).item() == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert discriminator_accuracy(torch.zeros(3), torch.zeros(3)).item() == 0.5


def test_gradients_are_those_of_the_losses():
    torch.manual_seed(3)
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    other = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    labels, classes = torch.tensor([[1, 0, UNKNOWN]] * 4, dtype=torch.uint8), torch.tensor([0, IGNORE, 2, 1])
    assert torch.autograd.gradcheck(lambda rows: category_loss(rows, classes, smoothing=0.1), logits)
    assert torch.autograd.gradcheck(lambda rows: attribute_loss(rows, labels, smoothing=0.1), logits)
    for form in ("norm", "mean_square"):
        assert torch.autograd.gradcheck(lambda a, b, form=form: row_distance(a, b, form=form), (logits, other))
    for form in ("cross_entropy", "double_sigmoid"):
        for real in (True, False):
            loss = lambda rows, form=form, real=real: adversarial_loss(rows, real, form=form)  # noqa: E731
            assert torch.autograd.gradcheck(loss, logits[:, 0])
