"""The regulariser over blocks of rows: the plain formula's value and gradients, without a C x C tensor."""

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from descry.trainer.losses import adaptive_semantic_margin

PETA_PATTERNS = (6, 40, 3, 3, 17, 12, 15, 16, 5, 5, 2, 5, 46, 22, 11, 15, 4)


class LargestTensor(TorchDispatchMode):
    """Remembers the elements of the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def plain(categories, group_labels, weights, temperature):
    """The formula as it is printed, over all pairs at once."""
    unit = functional.normalize(categories, dim=1)
    i, j = torch.triu_indices(len(unit), len(unit), offset=1)
    cosine = (unit @ unit.T)[i, j]
    distance = ((group_labels[i] != group_labels[j]) * weights).sum(dim=1)
    return (cosine - cosine.mean() - torch.sigmoid(1 - distance / temperature)).square().mean()


def draw(count: int, dtype=torch.float64):
    generator = torch.Generator().manual_seed(count)
    labels = [torch.randint(0, classes, (count,), generator=generator) for classes in PETA_PATTERNS]
    categories = torch.randn(count, 8, dtype=dtype, generator=generator).requires_grad_()
    weights = (0.75 + 0.5 * torch.rand(len(labels), dtype=dtype, generator=generator)).requires_grad_()
    return categories, torch.stack(labels, dim=1), weights


@pytest.mark.parametrize(("count", "block"), [(2, 256), (37, 5), (40, 8), (40, 40), (41, 1)])
def test_blocks_give_the_plain_value_and_gradients(count, block):
    categories, labels, weights = draw(count)
    ours = adaptive_semantic_margin(categories, labels, weights, temperature=8.5, block=block)
    theirs = plain(categories, labels, weights, 8.5)
    torch.testing.assert_close(ours, theirs, atol=1e-13, rtol=1e-12)
    gradients = torch.autograd.grad(ours, (categories, weights)), torch.autograd.grad(theirs, (categories, weights))
    for block_gradient, plain_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(block_gradient, plain_gradient, atol=1e-13, rtol=1e-9)


def test_float32_is_as_exact_as_the_plain_form():
    categories, labels, weights = draw(600, torch.float32)
    ours = adaptive_semantic_margin(categories, labels, weights, temperature=8.5)
    exact = plain(categories.double(), labels, weights.double(), 8.5)
    assert ours.item() == pytest.approx(exact.item(), rel=1e-5)


def test_no_tensor_grows_with_all_pairs_of_categories():
    categories, labels, weights = draw(1890, torch.float32)
    with LargestTensor() as largest:
        adaptive_semantic_margin(categories, labels, weights, temperature=8.5).backward()
    assert largest.elements <= max(256 * 1890, 1890 * sum(PETA_PATTERNS))
    assert categories.grad.isfinite().all() and weights.grad.abs().min() > 0
