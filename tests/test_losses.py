"""Losses against slow hand-written references in float64-friendly loops."""

import math

import pytest
import torch

from descry.trainer.losses import (
    IGNORE,
    adaptive_semantic_margin,
    group_hamming,
    masked_group_cross_entropy,
    modality_alignment,
)


def unit(vector):
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]


def alignment_by_hand(images, categories, labels, sigma, gamma):
    losses = []
    for image, label in zip(images, labels, strict=True):
        if label == IGNORE:
            continue
        cosines = [sum(a * b for a, b in zip(unit(image), unit(category), strict=True)) for category in categories]
        angle = math.acos(max(-1.0, min(1.0, cosines[label])))
        past = angle + gamma >= math.pi
        shifted = cosines[label] - gamma * math.sin(math.pi - gamma) if past else math.cos(angle + gamma)
        logits = [sigma * (shifted if index == label else cosine) for index, cosine in enumerate(cosines)]
        top = max(logits)
        losses.append(top + math.log(sum(math.exp(logit - top) for logit in logits)) - logits[label])
    return sum(losses) / len(losses)


def margin_by_hand(categories, labels, weights, temperature):
    count = len(categories)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    cosine = {
        (i, j): sum(a * b for a, b in zip(unit(categories[i]), unit(categories[j]), strict=True)) for i, j in pairs
    }
    mean = 2 / (count**2 - count) * sum(cosine.values())
    total = 0.0
    for i, j in pairs:
        distance = sum(w for w, a, b in zip(weights, labels[i], labels[j], strict=True) if a != b)
        affinity = 1 / (1 + math.exp(-(1 - distance / temperature)))
        total += (cosine[i, j] - mean - affinity) ** 2
    return 2 / (count**2 - count) * total


@pytest.mark.parametrize(("sigma", "gamma"), [(12.0, 0.2), (16.0, 0.3), (1.0, 0.0)])
def test_modality_alignment_equals_the_loop(sigma, gamma):
    torch.manual_seed(0)
    images, categories = torch.randn(9, 5), torch.randn(7, 5)
    labels = torch.tensor([0, 1, 6, IGNORE, 3, 3, 2, IGNORE, 5])
    images[0] = -categories[0]  # the hard branch: the angle plus the margin passes pi
    expected = alignment_by_hand(images.tolist(), categories.tolist(), labels.tolist(), sigma, gamma)
    assert modality_alignment(images, categories, labels, sigma=sigma, gamma=gamma).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_modality_alignment_known_value():
    """An image on its category, the other category opposite: -log softmax(s cos g, -s)."""
    loss = modality_alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [-3.0, 0.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-12 - 12 * math.cos(0.2))), abs=1e-6)


def test_modality_alignment_without_a_label_is_zero_and_gives_no_gradient():
    images = torch.randn(3, 4, requires_grad=True)
    loss = modality_alignment(images, torch.randn(2, 4), torch.full((3,), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert images.grad.abs().max() == 0


def test_modality_alignment_is_finite_at_a_perfect_match_and_a_large_scale():
    images = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = modality_alignment(images, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0]), sigma=1e4)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(images.grad).all()


def test_an_image_without_a_category_gets_no_gradient():
    images = torch.randn(4, 3, requires_grad=True)
    modality_alignment(images, torch.randn(5, 3), torch.tensor([1, IGNORE, 2, 0])).backward()
    assert images.grad[1].abs().max() == 0
    assert images.grad[0].abs().max() > 0


@pytest.mark.parametrize("temperature", [10.0, 8.5])
def test_semantic_margin_equals_the_loop(temperature):
    torch.manual_seed(1)
    categories, weights = torch.randn(8, 6), 1 + torch.empty(4).uniform_(-0.25, 0.25)
    labels = torch.randint(0, 3, (8, 4))
    expected = margin_by_hand(categories.tolist(), labels.tolist(), weights.tolist(), temperature)
    value = adaptive_semantic_margin(categories, labels, weights, temperature=temperature).item()
    assert value == pytest.approx(expected, rel=1e-5)


def test_semantic_margin_identity():
    """With the exact mean, L = Var(c - delta) + mean(delta)^2 over the pairs."""
    torch.manual_seed(2)
    categories, labels = torch.randn(30, 16), torch.randint(0, 4, (30, 10))
    weights = torch.ones(10)
    upper = torch.triu_indices(30, 30, 1)
    cosine = torch.nn.functional.normalize(categories, dim=1)
    cosine = (cosine @ cosine.T)[upper[0], upper[1]]
    affinity = torch.sigmoid(1 - group_hamming(labels, weights)[upper[0], upper[1]] / 10)
    expected = (cosine - affinity).var(unbiased=False) + affinity.mean() ** 2
    assert adaptive_semantic_margin(categories, labels, weights, temperature=10).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_semantic_margin_gradients_reach_embeddings_and_weights():
    torch.manual_seed(3)
    categories = torch.randn(5, 4, requires_grad=True)
    weights = torch.ones(3, requires_grad=True)
    adaptive_semantic_margin(categories, torch.randint(0, 2, (5, 3)), weights, temperature=3).backward()
    assert categories.grad.abs().max() > 0
    assert weights.grad.abs().max() > 0


def test_semantic_margin_of_one_category_is_zero():
    assert (
        adaptive_semantic_margin(
            torch.randn(1, 4), torch.zeros(1, 2, dtype=torch.long), torch.ones(2), temperature=2
        ).item()
        == 0
    )


def test_group_hamming_equals_the_loop():
    torch.manual_seed(4)
    labels, weights = torch.randint(0, 5, (12, 6)), torch.rand(6)
    distances = group_hamming(labels, weights)
    for i in range(12):
        for j in range(12):
            expected = sum(weights[k].item() for k in range(6) if labels[i, k] != labels[j, k])
            assert distances[i, j].item() == pytest.approx(expected, abs=1e-5)


def test_group_cross_entropy_equals_the_loop_and_ignores_unknown_labels():
    torch.manual_seed(5)
    logits = [torch.randn(6, 2, requires_grad=True), torch.randn(6, 4, requires_grad=True)]
    labels = torch.tensor([[0, 3], [1, IGNORE], [IGNORE, IGNORE], [1, 0], [0, 2], [IGNORE, 1]])
    expected = 0.0
    for group, scores in enumerate(logits):
        losses = []
        for row, label in zip(scores.tolist(), labels[:, group].tolist(), strict=True):
            if label != IGNORE:
                losses.append(math.log(sum(math.exp(value) for value in row)) - row[label])
        expected += sum(losses) / len(losses)
    loss = masked_group_cross_entropy(logits, labels)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logits[0].grad[2].abs().max() == 0
    assert logits[1].grad[1].abs().max() == 0


def test_group_cross_entropy_of_a_group_that_nobody_labelled_is_zero():
    logits = [torch.randn(3, 2, requires_grad=True)]
    loss = masked_group_cross_entropy(logits, torch.full((3, 1), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert logits[0].grad.abs().max() == 0
