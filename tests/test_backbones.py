"""What the project adds to timm's networks."""

import copy

import torch
from torch import nn

from descry.trainer.backbones import Backbone, BackboneConfig


def strided_depthwise(backbone: Backbone) -> list[nn.Conv2d]:
    return [
        module
        for module in backbone.modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1 and module.stride == (2, 2)
    ]


def test_under_autocast_strided_depthwise_convolutions_compute_in_float32():
    torch.manual_seed(0)
    convolutions = strided_depthwise(Backbone(BackboneConfig("mobilenetv2_100", last_stride=2)))
    assert len(convolutions) == 4
    convolution = convolutions[0]
    pixels = torch.randn(2, convolution.in_channels, 9, 8).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        result = convolution(pixels)
        assert result.dtype == torch.bfloat16, "what follows still computes in bfloat16"
    result.float().sum().backward()
    exact = nn.functional.conv2d(pixels.detach().float(), convolution.weight, None, 2, 1, 1, convolution.groups)
    assert torch.equal(result, exact.bfloat16())
    gradient = convolution.weight.grad
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        exact.requires_grad_()
        reference = nn.functional.conv2d(pixels.float(), convolution.weight, None, 2, 1, 1, convolution.groups)
        (expected,) = torch.autograd.grad(reference.sum(), convolution.weight)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, expected, rtol=1e-2, atol=1e-2)


def test_without_autocast_nothing_is_cast_and_copies_behave_alike():
    backbone = Backbone(BackboneConfig("mobilenetv2_100")).eval()
    images = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8)
    with torch.no_grad():
        features = backbone(images)
        assert features.dtype == torch.float32
        assert torch.equal(copy.deepcopy(backbone)(images), features)
