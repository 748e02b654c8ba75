"""What a network costs: parameters, floating-point operations and memory of embedding and recognising one crop."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from descry.trainer.config import ImageConfig
from descry.trainer.methods import Method


def model_costs(method: Method, image: ImageConfig) -> dict[str, Any]:
    """Costs of what serves an image, `encode_image` and `attribute_scores`; what only training needs is left out.

    Returns:
        `parameters`: learnt numbers that an image's embedding or scores depend on. `megabytes`: theirs in float32, 10^6
        bytes. `gflops`: 10^9 floating-point operations of one crop, a multiplication and an addition counted as two.
    """
    device = next(method.parameters()).device
    crop = torch.zeros(1, 3, image.height, image.width, dtype=torch.uint8, device=device)
    training = method.training
    method.eval()
    try:
        parameters = sum(parameter.numel() for parameter in _used(method, crop))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            _serve(method, crop)
    finally:
        method.train(training)
    return {"parameters": parameters, "megabytes": 4 * parameters / 1e6, "gflops": counter.get_total_flops() / 1e9}


def _serve(method: Method, crop: Tensor) -> tuple[Tensor, Tensor]:
    unit, features = method.encode_image(crop)
    return unit, method.attribute_scores(features)


def _used(method: Method, crop: Tensor) -> list[nn.Parameter]:
    """The parameters that an output depends on: those with a gradient."""
    required = {parameter: parameter.requires_grad for parameter in method.parameters()}
    method.requires_grad_(True)
    try:
        unit, scores = _serve(method, crop)
        gradients = torch.autograd.grad(unit.sum() + scores.sum(), list(required), allow_unused=True)
    finally:
        for parameter, before in required.items():
            parameter.requires_grad_(before)
    return [parameter for parameter, gradient in zip(required, gradients, strict=True) if gradient is not None]
