"""Distances between descriptions and gallery images (Multi-task Transformer, retrieval), and how they are fused."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from descry.trainer.metrics import search_metrics


@dataclass(frozen=True)
class Fusion:
    """The constants of the fused distance: of validation data for serving, of the evaluated matrix for the paper's.

    Attributes:
        par_weight: lambda_Ret.
        max_par, max_emb: the largest PAR and embedding distance, > 0.
    """

    par_weight: float
    max_par: float
    max_emb: float


def par_distances(attributes: Tensor, known: Tensor, scores: Tensor) -> Tensor:
    """Euclidean distance between stated attributes and PAR scores over the known elements.

    Args:
        attributes: [Q, N] of 0 and 1.
        known: [Q, N] of 0 and 1.
        scores: [G, N] in 0..1.

    Returns:
        [Q, G]; 0 where nothing is known.
    """
    # (b - p)^2 summed over known elements = sum k b^2 - 2 (k b) p + k p^2: three products, no [Q, G, N] tensor. In
    # float32 the difference would leave 1e-3 between an image that fits exactly and its description.
    bits, mask, probabilities = attributes.double(), known.double(), scores.double()
    stated = mask * bits
    squared = (stated * bits).sum(1, keepdim=True) - 2 * stated @ probabilities.T + mask @ probabilities.square().T
    return squared.clamp(min=0).sqrt().to(scores.dtype)


def embedding_distances(queries: Tensor, embeddings: Tensor) -> Tensor:
    """Cosine distance 1 - q g, [Q, G], of unit rows [Q, D] and [G, D]."""
    return 1 - queries @ embeddings.T


def fuse(par: Tensor, embedding: Tensor, fusion: Fusion) -> Tensor:
    """`par_weight * par / max_par + embedding / max_emb`, elementwise."""
    return fusion.par_weight * par / fusion.max_par + embedding / fusion.max_emb


def measure_fusion(par: Tensor, embedding: Tensor, par_weight: float) -> Fusion:
    """The constants that divide each distance [Q, G] by its largest value (Multi-task Transformer, retrieval)."""
    floor = torch.finfo(torch.float32).eps
    return Fusion(par_weight, max(float(par.max()), floor), max(float(embedding.max()), floor))


def fit_fusion(par: Tensor, embedding: Tensor, relevant: Tensor, par_weights: Sequence[float]) -> Fusion:
    """Measure the maxima on distances [Q, G] and pick the weight with the best mAP there.

    Args:
        par: PAR distances.
        embedding: embedding distances.
        relevant: bool [Q, G].
        par_weights: candidates; a single one is taken as it is.
    """
    candidates = [measure_fusion(par, embedding, weight) for weight in par_weights]
    if len(candidates) == 1:
        return candidates[0]
    return max(candidates, key=lambda fusion: search_metrics(fuse(par, embedding, fusion), relevant)["mAP"])
