"""How cosines of the joint space follow what descriptions share: the property that ASMR's regulariser trains."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from descry.trainer.extraction import Extracted
from descry.trainer.methods import Method
from descry.trainer.protocols import category_queries
from descry.trainer.schema import UNKNOWN, AttributeSchema


@dataclass(frozen=True)
class SimilarityCurve:
    """Cosines by the number of attribute groups that differ.

    Attributes:
        differing: int64 [K], the numbers that occur, ascending.
        mean, deviation: float [K], of the cosines at each.
        pairs: int64 [K], how many there are.
    """

    differing: Tensor
    mean: Tensor
    deviation: Tensor
    pairs: Tensor


def differing_groups(first: Tensor, second: Tensor, schema: AttributeSchema) -> Tensor:
    """In how many attribute groups descriptions differ: int64 [n, m] of uint8 [n, N] and [m, N]."""
    differing = torch.zeros(len(first), len(second), dtype=torch.long)
    for _, where in schema:
        differing += (first[:, None, where] != second[None, :, where]).any(dim=2)
    return differing


def similarity_curve(cosines: Tensor, differing: Tensor) -> SimilarityCurve:
    """Mean and standard deviation of cosines [M] at each number of differing groups int64 [M]."""
    found, position, pairs = differing.unique(return_inverse=True, return_counts=True)
    mean = torch.zeros(len(found), dtype=torch.float64).index_add(0, position, cosines.double()) / pairs
    square = (cosines.double() - mean[position]).square()
    deviation = (torch.zeros_like(mean).index_add(0, position, square) / pairs).sqrt()
    return SimilarityCurve(found, mean, deviation, pairs)


@torch.inference_mode()
def similarity_curves(method: Method, gallery: Extracted) -> tuple[SimilarityCurve, SimilarityCurve]:
    """Curves over pairs of the gallery's descriptions, and over pairs of a description and an image.

    Images with an unknown label are left out.
    """
    described = category_queries(gallery.crops, method.labels.categories).attributes
    stated = described.float().to(next(method.parameters()).device)
    encoded = F.normalize(method.encode_attributes(stated, torch.ones_like(stated)).cpu(), dim=1)
    complete = (gallery.attributes != UNKNOWN).all(dim=1)
    between = differing_groups(described, described, method.schema)
    across = differing_groups(described, gallery.attributes[complete], method.schema)
    upper = torch.ones_like(between, dtype=torch.bool).triu(1)
    return (
        similarity_curve((encoded @ encoded.T)[upper], between[upper]),
        similarity_curve((encoded @ gallery.embeddings[complete].T).flatten(), across.flatten()),
    )
