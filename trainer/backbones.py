"""Image backbones: any timm network with a feature map, ImageNet weights from a file or timm's hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class BackboneConfig:
    """Which network, and where its weights come from.

    Attributes:
        name: a timm architecture, e.g. `resnet50`, `resnet18`, `mobilenetv2_100`.
        last_stride: stride of the last stage; 1 doubles the feature map (ASMR, Cerberus), 2 leaves timm's.
        weights: empty (random), a `.safetensors` file with timm's names, or a timm pretrained tag, e.g. `a1_in1k`.
    """

    name: str = "resnet50"
    last_stride: int = 1
    weights: str = ""


class Backbone(nn.Module):
    """A timm network that maps uint8 crops to a feature map.

    Normalisation with the mean and standard deviation of the weights is inside, so that every caller hands over pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig, load_weights: bool = True) -> None:
        """Build the network.

        Args:
            config: see `BackboneConfig`.
            load_weights: False leaves the weights random, for a checkpoint that brings its own.

        Raises:
            FileNotFoundError: `weights` names a file that does not exist.
            ValueError: the last stage cannot be given the stride asked for.
        """
        super().__init__()
        # Channels-last doubles the training speed of depthwise convolutions on CPUs (docs/performance.md).
        self.network = _create(config, load_weights).to(memory_format=torch.channels_last)
        _keep_strided_depthwise_in_float32(self.network)
        if config.last_stride == 1:
            remove_last_stride(self.network)
        elif config.last_stride != 2:
            raise ValueError(f"backbone.last_stride is 1 or 2, not {config.last_stride}")
        statistics: dict[str, Any] = self.network.pretrained_cfg  # type: ignore[assignment]
        self.register_buffer("mean", torch.tensor(statistics["mean"]).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(statistics["std"]).view(1, 3, 1, 1) * 255, persistent=False)
        self.channels = int(self.network.num_features)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Feature map [B, channels, H', W'] of images uint8 [B, 3, H, W]."""
        pixels = (images.float() - self.mean) / self.std
        pixels = pixels.to(dtype=next(self.network.parameters()).dtype, memory_format=torch.channels_last)
        return self.network.forward_features(pixels)  # type: ignore[operator]

    def pooled(self, images: Tensor) -> Tensor:
        """Globally average-pooled features [B, channels] of images uint8 [B, 3, H, W]."""
        return self(images).float().mean(dim=(2, 3))

    def freeze_batch_norm(self) -> None:
        """Use the running statistics from now on; scale and shift are still trained (ASMR, stage 2)."""
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _create(config: BackboneConfig, load_weights: bool) -> nn.Module:
    if not (load_weights and config.weights):
        return timm.create_model(config.name, pretrained=False, num_classes=0)
    if config.weights.endswith(".safetensors"):
        if not Path(config.weights).is_file():
            raise FileNotFoundError(f"backbone.weights: {config.weights} does not exist; give a file or a timm tag")
        overlay = {"file": config.weights}
        return timm.create_model(config.name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0)
    return timm.create_model(f"{config.name}.{config.weights}", pretrained=True, num_classes=0)


class _Float32Convolution(nn.Conv2d):
    """A convolution that leaves autocast on a CPU."""

    def forward(self, pixels: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        if not (pixels.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
            return super().forward(pixels)
        with torch.autocast("cpu", enabled=False):
            return super().forward(pixels.float()).to(pixels.dtype)


def _keep_strided_depthwise_in_float32(network: nn.Module) -> None:
    """Under autocast on a CPU, compute depthwise convolutions with a stride in float32.

    oneDNN's bfloat16 gradient of these few layers takes six times that of float32: half of a training step of
    MobileNetV2 (docs/performance.md).
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1 and module.stride != (1, 1):
            module.__class__ = _Float32Convolution


def remove_last_stride(network: nn.Module) -> None:
    """Set the stride of the last block that halves the map to 1, without dilation (timm's `output_stride` dilates).

    Raises:
        ValueError: the network has no strided convolution inside a block.
    """
    strided = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2)
    ]
    if not strided or strided[-1][0].count(".") < 2:
        raise ValueError(f"{type(network).__name__}: no block with a stride to remove; set backbone.last_stride to 2")
    block = ".".join(strided[-1][0].split(".")[:2]) + "."
    for name, module in strided:
        if name.startswith(block):
            module.stride = (1, 1)
