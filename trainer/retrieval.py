"""Distances between descriptions and gallery images, and how they are fused."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from descry.trainer.metrics import search_metrics

# The least probability that a PAR score counts as.
FLOOR = 1e-3


@dataclass(frozen=True)
class Fusion:
    """The constants of the fused distance: of validation data for serving, of the evaluated matrix for the paper's.

    Attributes:
        par_weight: lambda_Ret.
        max_par, max_emb: the largest PAR and embedding distance, > 0.
        par_distance: which PAR distance, a key of `PAR_DISTANCES`.
        neighbours: nearest images that each gallery image is averaged with (`neighbourhood.py`).
    """

    par_weight: float
    max_par: float
    max_emb: float
    par_distance: str = "euclidean"
    neighbours: int = 0


def par_distances(attributes: Tensor, known: Tensor, scores: Tensor, kind: str = "euclidean") -> Tensor:
    """Distance between stated attributes b and PAR scores p over the known elements.

    Args:
        attributes: [Q, N] of 0 and 1.
        known: [Q, N] in 0..1; between the two an element counts in part.
        scores: [G, N] in 0..1.
        kind: `euclidean`, the root of sum known (b - p)^2 (Multi-task Transformer), or `likelihood`, the nats
            - sum known (b log p + (1 - b) log(1 - p)): where the first counts a score of 0.01 for what is stated little
            more than one of 0.1, this tells them apart. Scores are then kept `FLOOR` away from 0 and 1, so that no
            single attribute rules an image out.

    Returns:
        [Q, G] from 0 on; 0 where nothing is known.
    """
    return PAR_DISTANCES[kind](attributes.double(), known.double(), scores.double()).to(scores.dtype)


def _euclidean(bits: Tensor, mask: Tensor, probabilities: Tensor) -> Tensor:
    # (b - p)^2 summed over known elements = sum k b^2 - 2 (k b) p + k p^2: three products, no [Q, G, N] tensor. In
    # float32 the difference would leave 1e-3 between an image that fits exactly and its description.
    stated = mask * bits
    squared = (stated * bits).sum(1, keepdim=True) - 2 * stated @ probabilities.T + mask @ probabilities.square().T
    return squared.clamp(min=0).sqrt()


def _likelihood(bits: Tensor, mask: Tensor, probabilities: Tensor) -> Tensor:
    present, absent = (side.clamp(FLOOR, 1 - FLOOR).log() for side in (probabilities, 1 - probabilities))
    return -(mask * bits) @ present.T - (mask * (1 - bits)) @ absent.T


PAR_DISTANCES = {"euclidean": _euclidean, "likelihood": _likelihood}


def embedding_distances(queries: Tensor, embeddings: Tensor) -> Tensor:
    """Cosine distance 1 - q g, [Q, G], of unit rows [Q, D] and [G, D]."""
    return 1 - queries @ embeddings.T


def fuse(par: Tensor, embedding: Tensor, fusion: Fusion) -> Tensor:
    """`par_weight * par / max_par + embedding / max_emb`, elementwise."""
    return fusion.par_weight * par / fusion.max_par + embedding / fusion.max_emb


def measure_fusion(par: Tensor, embedding: Tensor, par_weight: float, par_distance: str = "euclidean") -> Fusion:
    """The constants that divide each distance [Q, G] by its largest value (Multi-task Transformer, retrieval)."""
    floor = torch.finfo(torch.float32).eps
    return Fusion(par_weight, max(float(par.max()), floor), max(float(embedding.max()), floor), par_distance)


def fit_fusion(
    par: Tensor, embedding: Tensor, relevant: Tensor, par_weights: Sequence[float], par_distance: str = "euclidean"
) -> Fusion:
    """Measure the maxima on distances [Q, G] and pick the weight with the best mAP there.

    Args:
        par: PAR distances.
        embedding: embedding distances.
        relevant: bool [Q, G].
        par_weights: candidates; a single one is taken as it is.
        par_distance: which of `PAR_DISTANCES` `par` is.
    """
    candidates = [measure_fusion(par, embedding, weight, par_distance) for weight in par_weights]
    if len(candidates) == 1:
        return candidates[0]
    return max(candidates, key=lambda fusion: search_metrics(fuse(par, embedding, fusion), relevant)["mAP"])
