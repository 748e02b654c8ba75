"""The image side of Cerberus: a trunk, two branches on it, the alignment module and part pooling."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descry.trainer.backbones import Backbone, BackboneConfig


def layers_of(network: nn.Module) -> list[nn.Module]:
    """The modules of a timm network that, one after the other, are its `forward_features`.

    Raises:
        ValueError: it is none of the kinds that are known here.
    """
    found = dict(network.named_children())
    if "layer4" in found:
        stem = [found[name] for name in ("conv1", "bn1", "act1", "maxpool")]
        return [*stem, *(block for stage in range(1, 5) for block in found[f"layer{stage}"])]  # type: ignore[attr-defined]
    if "conv_head" in found:
        blocks = [block for stage in found["blocks"] for block in stage]  # type: ignore[attr-defined]
        return [found["conv_stem"], found["bn1"], *blocks, found["conv_head"], found["bn2"]]
    if "patch_embed" in found and "stages" in found:
        return [found["patch_embed"], *found["stages"]]  # type: ignore[misc]
    raise ValueError(
        f"{type(network).__name__} cannot be branched: choose a ResNet, an EfficientNet or MobileNet, or a PVTv2"
    )


def _trunk_length(layers: list[nn.Module]) -> int:
    """How many layers both branches share: up to the first whose map is a sixteenth of the image (layer3[0])."""
    side, pixels = 64, torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        for count, layer in enumerate(layers, start=1):
            pixels = layer.eval()(pixels)
            if pixels.shape[2] <= side // 16:
                return count
    raise ValueError("the network never reduces its map to a sixteenth of the image: there is no stage to copy")


class BranchedNetwork(nn.Module):
    """A timm network whose last stages exist twice: the global and the local branch."""

    def __init__(self, network: nn.Module) -> None:
        """Take the network apart; both branches start equal."""
        super().__init__()
        training, layers = network.training, layers_of(network)
        length = _trunk_length(layers)
        self.trunk = nn.Sequential(*layers[:length])
        self.global_branch = nn.Sequential(*layers[length:])
        self.local_branch = copy.deepcopy(self.global_branch)
        self.num_features = int(network.num_features)  # type: ignore[arg-type]
        self.train(training)

    def forward_features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """F^g and F^l [B, channels, H', W'] of normalised pixels."""
        shared = self.trunk(pixels)
        return self.global_branch(shared), self.local_branch(shared)


class BranchedBackbone(Backbone):
    """A `Backbone` with two feature maps."""

    def __init__(self, config: BackboneConfig, load_weights: bool = True) -> None:
        """Build the network, load its weights, then branch it; raises what `Backbone` raises."""
        super().__init__(config, load_weights)
        self.network = BranchedNetwork(self.network)

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Global and local feature map float [B, channels, H', W'] of images uint8 [B, 3, H, W]."""
        global_map, local_map = self(images)
        return global_map.float(), local_map.float()


def align_rows(feature_map: Tensor, threshold: float) -> Tensor:
    """Stretch the rows that show a person over the whole map (the alignment module, section 3.1.1).

    A row shows a person when the largest norm of its features exceeds `threshold` (sigma). The map is cropped to the
    first and the last such row and resized to its height, bilinearly. Where no row does, it stays.

    Args:
        feature_map: [B, C, H, W].
        threshold: in the unit of the features.

    Returns:
        [B, C, H, W]. Which rows are kept has no gradient.
    """
    rows = feature_map.shape[2]
    shown = feature_map.norm(dim=1).amax(dim=2) > threshold
    shown = shown | ~shown.any(dim=1, keepdim=True)
    first = shown.int().argmax(dim=1, keepdim=True)
    last = rows - 1 - shown.flip(1).int().argmax(dim=1, keepdim=True)
    # Centres of the output rows in the crop, as bilinear interpolation without aligned corners has them.
    position = torch.arange(rows, device=feature_map.device)
    source = first + (position + 0.5) * (last - first + 1) / rows - 0.5
    source = torch.minimum(torch.maximum(source, first.to(source)), last.to(source))
    weights = (1 - (source[:, :, None] - position).abs()).clamp(min=0)
    return torch.einsum("bor,bcrw->bcow", weights.to(feature_map), feature_map)


def pool_parts(global_map: Tensor, local_map: Tensor, parts: list[str]) -> list[Tensor]:
    """Pooled features [B, C] of each part: a third of the local map for head, upper and lower body, else all of F^g."""
    stripes = F.adaptive_avg_pool2d(local_map, (3, 1))[:, :, :, 0].unbind(dim=2)
    local = dict(zip(("head", "upper", "lower"), stripes, strict=True))
    whole = global_map.mean(dim=(2, 3))
    return [local.get(part, whole) for part in parts]
