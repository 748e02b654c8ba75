"""The fully connected networks of SAL: batch norm and an activation after every layer but the last."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

FEATURES, EMBEDDING = 512, 128


def own_rows(count: int, draw: Callable[[int], Tensor]) -> Tensor:
    """This process's `count` rows of what `draw` gives for all processes together."""
    if not torch.distributed.is_initialized():
        return draw(count)
    rows = draw(count * torch.distributed.get_world_size())
    return rows.split(count)[torch.distributed.get_rank()]


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over the rows of all processes together, for rows [..., C].

    An adversarial loss compares distributions, so their statistics must not depend on how the batch is cut up.
    (`nn.SyncBatchNorm` does the same on GPUs only.)
    """

    def forward(self, rows: Tensor) -> Tensor:
        """As `nn.BatchNorm1d`."""
        if rows.dim() > 2:
            return self(rows.flatten(0, -2)).view_as(rows)
        if not (self.training and torch.distributed.is_initialized()):
            return super().forward(rows)
        processes, process = torch.distributed.get_world_size(), torch.distributed.get_rank()
        normalised = super().forward(torch.cat(all_gather(rows)))
        return normalised.chunk(processes)[process]


def normalised_perceptron(*sizes: int, slope: float = 0.0) -> nn.Sequential:
    """Linear layers; after each but the last, batch norm and a ReLU that leaks `slope`."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), BatchNorm(outputs), nn.LeakyReLU(slope) if slope else nn.ReLU()]
    return nn.Sequential(*layers[:-2])


def attribute_extractor(attributes: int) -> nn.Module:
    """Descriptions [B, N] to features f_a [B, 512] in -1..1."""
    return nn.Sequential(normalised_perceptron(attributes, 64, 128, 256, FEATURES), nn.Tanh())


def encoder(embedding_size: int) -> nn.Module:
    """E_V or E_A: features [B, 512] to embeddings [B, D] in -1..1."""
    return nn.Sequential(normalised_perceptron(FEATURES, FEATURES, 256, embedding_size), nn.Tanh())


def generator(noise: int = 0) -> nn.Module:
    """G_A or, with noise, G_V: features [B, 512 + noise] to features of the other modality [B, 512] in -1..1."""
    return nn.Sequential(normalised_perceptron(FEATURES + noise, 256, 128, 256, FEATURES), nn.Tanh())


class Discriminator(nn.Module):
    """D1 or D2: rows [B, width] to the logits [B] of being real; the paper's sigmoid is in the losses."""

    def __init__(self, width: int) -> None:
        """Build the layers."""
        super().__init__()
        self.layers = normalised_perceptron(width, 512, 256, 1, slope=0.2)

    def forward(self, rows: Tensor) -> Tensor:
        """See the class."""
        return self.layers(rows)[:, 0]


class SALNetworks(nn.Module):
    """Everything between the features of the image extractor and the losses.

    Args:
        attributes: N.
        categories: of the training split.
        embedding_size: D.
        noise: numbers of noise that G_V gets.
    """

    def __init__(self, attributes: int, categories: int, embedding_size: int, noise: int) -> None:
        """Build them."""
        super().__init__()
        self.attribute_extractor = attribute_extractor(attributes)
        self.image_encoder, self.attribute_encoder = encoder(embedding_size), encoder(embedding_size)
        self.attribute_classifier = nn.Linear(embedding_size, attributes)
        self.category_classifier = nn.Linear(embedding_size, categories)
        self.attribute_generator, self.visual_generator = generator(), generator(noise)
        self.synthesis_discriminator = Discriminator(2 * FEATURES)
        self.alignment_discriminator = Discriminator(embedding_size)
