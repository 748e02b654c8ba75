"""Losses against slow hand-written loops in float64, and what holds for all of them."""

import math

import pytest
import torch

from descry.trainer.losses import (
    IGNORE,
    adaptive_semantic_margin,
    alignment_losses,
    attribute_losses,
    group_hamming,
    masked_group_cross_entropy,
    mean_over,
    modality_alignment,
)
from descry.trainer.schema import UNKNOWN

EXACT = {"rel": 1e-10, "abs": 1e-12}


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def integers(seed, below, *shape):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def unit(vector):
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]


def dot(first, second):
    return sum(a * b for a, b in zip(first, second, strict=True))


def log_sum_exp(values):
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def alignment_by_hand(images, categories, labels, sigma, gamma):
    losses = []
    for image, label in zip(images, labels, strict=True):
        if label == IGNORE:
            losses.append(0.0)
            continue
        cosines = [dot(unit(image), unit(category)) for category in categories]
        angle = math.acos(max(-1.0, min(1.0, cosines[label])))
        past = angle + gamma >= math.pi
        shifted = cosines[label] - gamma * math.sin(math.pi - gamma) if past else math.cos(angle + gamma)
        logits = [sigma * (shifted if index == label else cosine) for index, cosine in enumerate(cosines)]
        losses.append(log_sum_exp(logits) - logits[label])
    return losses


def margin_by_hand(categories, labels, weights, temperature):
    count = len(categories)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    cosine = {(i, j): dot(unit(categories[i]), unit(categories[j])) for i, j in pairs}
    mean = 2 / (count**2 - count) * sum(cosine.values())
    total = 0.0
    for i, j in pairs:
        distance = sum(w for w, a, b in zip(weights, labels[i], labels[j], strict=True) if a != b)
        affinity = 1 / (1 + math.exp(-(1 - distance / temperature)))
        total += (cosine[i, j] - mean - affinity) ** 2
    return 2 / (count**2 - count) * total


def group_cross_entropy_by_hand(logits, labels):
    total = 0.0
    for scores, column in zip(logits, zip(*labels, strict=True), strict=True):
        losses = [log_sum_exp(row) - row[label] for row, label in zip(scores, column, strict=True) if label != IGNORE]
        total += sum(losses) / len(losses) if losses else 0.0
    return total


GROUPS = torch.tensor([[0, 3], [1, IGNORE], [IGNORE, IGNORE], [1, 0], [0, 2], [IGNORE, 1]])
OWNERS = torch.tensor([0, 1, 6, IGNORE, 3, 3, 2, IGNORE, 5])
BITS = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0], [UNKNOWN] * 4, [0, UNKNOWN, 1, 1], [1] * 4, [0] * 4]).byte()
RATIOS = torch.tensor([0.1, 0.5, 0.9, 0.3], dtype=torch.float64)
# Of each loss: the function of what carries gradients, and values for that, some of their labels unknown.
LOSSES = {
    "group cross-entropy": (
        lambda first, second: masked_group_cross_entropy([first, second], GROUPS),
        (normal(0, 6, 2), normal(1, 6, 4)),
    ),
    "alignment": (
        lambda images, categories: alignment_losses(images, categories, OWNERS),
        (normal(2, 9, 5), normal(3, 7, 5)),
    ),
    "mean alignment": (
        lambda images, categories: modality_alignment(images, categories, OWNERS, sigma=16.0, gamma=0.3),
        (normal(4, 9, 5), normal(5, 7, 5)),
    ),
    "semantic margin": (
        lambda categories, weights: adaptive_semantic_margin(
            categories, integers(6, 3, 8, 4), weights, temperature=8.5
        ),
        (normal(7, 8, 6), 1 + 0.1 * normal(8, 4)),
    ),
    "recognition, label dependent": (lambda logits: attribute_losses(logits, BITS, RATIOS), (normal(9, 6, 4),)),
    "recognition, attribute": (
        lambda logits: attribute_losses(logits, BITS, RATIOS, weighting="attribute"),
        (normal(10, 6, 4),),
    ),
    "recognition, none": (
        lambda logits: attribute_losses(logits, BITS, RATIOS, weighting="none"),
        (normal(11, 6, 4),),
    ),
}


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]


def test_gradients_are_those_of_finite_differences(loss):
    function, values = loss
    assert torch.autograd.gradcheck(function, [value.clone().requires_grad_() for value in values])


def test_the_hard_branch_of_the_alignment_has_the_right_gradient():
    """Past pi the positive cosine takes another form: an angle of 3.0 and a margin of 0.2."""
    image = torch.tensor([[math.cos(3.0), math.sin(3.0)]], dtype=torch.float64, requires_grad=True)
    categories = torch.tensor([[1.0, 0.0], [0.3, 1.0]], dtype=torch.float64, requires_grad=True)
    owner = torch.tensor([0])
    expected = alignment_by_hand(image.tolist(), categories.tolist(), [0], 12.0, 0.2)
    assert alignment_losses(image, categories, owner).tolist() == pytest.approx(expected, **EXACT)
    assert torch.autograd.gradcheck(lambda *given: alignment_losses(*given, owner), [image, categories])


def test_float64_is_kept_and_a_smaller_type_is_computed_in_float32(loss):
    function, values = loss
    assert function(*values).dtype == torch.float64
    half = [value.bfloat16() for value in values]
    assert function(*half).dtype == torch.float32
    torch.testing.assert_close(function(*half), function(*(value.float() for value in half)))


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_a_large_or_small_scale_stays_finite(loss, scale):
    function, values = loss
    given = [(scale * value).float().requires_grad_() for value in values]
    result = function(*given)
    result.sum().backward()
    assert torch.isfinite(result).all()
    assert all(torch.isfinite(value.grad).all() for value in given)


@pytest.mark.parametrize(("sigma", "gamma"), [(12.0, 0.2), (16.0, 0.3), (1.0, 0.0)])
def test_alignment_equals_the_loop(sigma, gamma):
    images, categories = normal(12, 9, 5), normal(13, 7, 5)
    images[0] = -categories[0]  # the angle plus the margin passes pi
    expected = alignment_by_hand(images.tolist(), categories.tolist(), OWNERS.tolist(), sigma, gamma)
    ours = alignment_losses(images, categories, OWNERS, sigma=sigma, gamma=gamma)
    # The smallest sine is 1e-6, not 0: an image on or opposite its category is off by that much.
    assert ours.tolist() == pytest.approx(expected, rel=1e-5)
    assert ours[1:].tolist() == pytest.approx(expected[1:], **EXACT)
    mean = sum(expected) / int((OWNERS != IGNORE).sum())
    assert modality_alignment(images, categories, OWNERS, sigma=sigma, gamma=gamma).item() == pytest.approx(mean, 1e-5)


def test_alignment_known_value():
    """An image on its category, the other category opposite: -log softmax(s cos g, -s)."""
    loss = modality_alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [-3.0, 0.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-12 - 12 * math.cos(0.2))), abs=1e-6)


def test_alignment_with_the_only_category_is_zero():
    assert alignment_losses(normal(0, 3, 4), normal(1, 1, 4), torch.tensor([0, 0, IGNORE])).tolist() == [0, 0, 0]


def test_alignment_without_a_category_is_zero_and_gives_no_gradient():
    images = normal(0, 4, 3).requires_grad_()
    nobody = modality_alignment(images, normal(1, 2, 3), torch.full((4,), IGNORE))
    nobody.backward()
    assert nobody.item() == 0 and images.grad.abs().max() == 0
    modality_alignment(images, normal(1, 5, 3), torch.tensor([1, IGNORE, 2, 0])).backward()
    assert images.grad[1].abs().max() == 0
    assert images.grad[0].abs().max() > 0


def test_alignment_is_finite_at_a_perfect_match_and_a_large_scale():
    images = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    loss = modality_alignment(images, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), sigma=1e4)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(images.grad).all()


def test_mean_over_what_is_kept():
    losses = torch.tensor([1.0, 5.0, 3.0])
    assert mean_over(losses, torch.tensor([True, False, True])) == 2
    assert mean_over(losses, torch.zeros(3, dtype=torch.bool)) == 0


@pytest.mark.parametrize("temperature", [10.0, 8.5])
@pytest.mark.parametrize("count", [2, 9])
def test_semantic_margin_equals_the_loop(temperature, count):
    categories, weights, labels = normal(14, count, 6), 1 + 0.2 * normal(15, 4), integers(16, 3, count, 4)
    expected = margin_by_hand(categories.tolist(), labels.tolist(), weights.tolist(), temperature)
    value = adaptive_semantic_margin(categories, labels, weights, temperature=temperature).item()
    assert value == pytest.approx(expected, **EXACT)


def test_semantic_margin_known_value():
    """Of two categories the mean cosine is their cosine: what is left is the square of sigmoid(1 - d / T)."""
    labels, weights = torch.tensor([[0, 1], [0, 2]]), torch.tensor([5.0, 2.0])
    assert adaptive_semantic_margin(torch.randn(2, 3), labels, weights, temperature=2.0).item() == pytest.approx(0.25)


def test_semantic_margin_identity():
    """With the exact mean, L = Var(c - delta) + mean(delta)^2 over the pairs."""
    categories, labels, weights = normal(17, 30, 16), integers(18, 4, 30, 10), torch.ones(10, dtype=torch.float64)
    upper = torch.triu_indices(30, 30, 1)
    cosine = torch.nn.functional.normalize(categories, dim=1)
    cosine = (cosine @ cosine.T)[upper[0], upper[1]]
    affinity = torch.sigmoid(1 - group_hamming(labels, weights)[upper[0], upper[1]] / 10)
    expected = (cosine - affinity).var(unbiased=False) + affinity.mean() ** 2
    value = adaptive_semantic_margin(categories, labels, weights, temperature=10).item()
    assert value == pytest.approx(expected.item(), **EXACT)


def test_semantic_margin_of_one_category_is_zero():
    categories = normal(0, 1, 4).requires_grad_()
    loss = adaptive_semantic_margin(categories, torch.zeros(1, 2, dtype=torch.long), torch.ones(2), temperature=2)
    loss.backward()
    assert loss.item() == 0 and categories.grad.abs().max() == 0


def test_group_hamming_equals_the_loop():
    labels, weights = integers(19, 5, 12, 6), normal(20, 6).abs()
    distances = group_hamming(labels, weights)
    for i in range(12):
        for j in range(12):
            expected = sum(weights[k].item() for k in range(6) if labels[i, k] != labels[j, k])
            assert distances[i, j].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rows", [1, 6])
def test_group_cross_entropy_equals_the_loop_and_ignores_unknown_labels(rows):
    logits = [normal(21, rows, 2).requires_grad_(), normal(22, rows, 4).requires_grad_()]
    loss = masked_group_cross_entropy(logits, GROUPS[:rows])
    loss.backward()
    expected = group_cross_entropy_by_hand([scores.tolist() for scores in logits], GROUPS[:rows].tolist())
    assert loss.item() == pytest.approx(expected, **EXACT)
    for group, scores in enumerate(logits):
        assert torch.equal(scores.grad.abs().amax(dim=1) > 0, GROUPS[:rows, group] != IGNORE)


def test_group_cross_entropy_known_values():
    """Equal scores: the logarithm of the number of patterns; a group of one pattern adds nothing."""
    logits = [torch.zeros(2, 5), torch.ones(2, 3), torch.full((2, 1), 7.0)]
    loss = masked_group_cross_entropy(logits, torch.tensor([[0, 2, 0], [4, IGNORE, 0]]))
    assert loss.item() == pytest.approx(math.log(5) + math.log(3))


def test_group_cross_entropy_of_a_group_that_nobody_labelled_is_zero():
    logits = normal(0, 3, 2).requires_grad_()
    loss = masked_group_cross_entropy([logits], torch.full((3, 1), IGNORE))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0
