"""What the methods that align images with whole attribute vectors share: ASMR's encoder and its regulariser."""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from descry.trainer.losses import adaptive_semantic_margin
from descry.trainer.methods.completion import complete_attributes

GROUP_WEIGHTS = ("one_plus", "released")


class MarginConfig(Protocol):
    """The constants that `semantic_margin` reads."""

    @property
    def temperature(self) -> float:
        """T; 0 = the number of groups."""

    @property
    def group_weights(self) -> str:
        """One of `GROUP_WEIGHTS`."""


def perceptron(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between; kaiming-normal (fan out) weights, zero biases (ASMR's released code)."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
        linear = nn.Linear(inputs, outputs)
        nn.init.kaiming_normal_(linear.weight, mode="fan_out")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def semantic_margin(embeddings: Tensor, group_labels: Tensor, offsets: Tensor, config: MarginConfig) -> Tensor:
    """L_ASMR over categories with embeddings [C, D], group labels [C, G] and learnable offsets W [G]."""
    weights = offsets + (1.0 if config.group_weights == "one_plus" else 0.0)
    temperature = config.temperature or float(len(offsets))
    return adaptive_semantic_margin(embeddings, group_labels, weights, temperature=temperature)


def encode_description(
    encoder: nn.Module, attributes: Tensor, known: Tensor, categories: Tensor, counts: Tensor
) -> Tensor:
    """Unit query embedding [B, D] of a description, attributes and known float [B, N].

    A complete description gives the encoder's embedding; what is unknown is averaged over 32 completions.
    """
    completed = complete_attributes(attributes, known, categories, counts)
    units = F.normalize(encoder(completed).float(), dim=2)
    return F.normalize(units.mean(dim=1), dim=1)
