"""Descriptions whose statements have a confidence: one rule for both distances.

Draw a threshold evenly from 0 to 1: what is stated with at least that confidence counts as stated, the rest as unknown.
The embedding distance of the description, and the sum in its PAR distance, are the means over the threshold.

- Confidence 1 is stated and 0 is unknown, exactly. In between both change evenly with it.
- In the PAR distance every element counts as often as its confidence k says: the root of the sum of k (b - p)^2.
- The embedding distance is a mean of distances of plain descriptions: where some statements have confidence c and the
  others are certain, c times that of all statements plus 1 - c times that of the certain ones. So the rule holds for
  every method: no encoder has to know of confidence. As these distances are 1 - q g, the query is the same mean of
  embeddings. It is not made a unit row again: that would spread its distances by how far the embeddings disagree.
"""

import torch
from torch import Tensor

from descry.trainer.extraction import Extracted, encode_descriptions
from descry.trainer.methods import Method
from descry.trainer.retrieval import embedding_distances, par_distances


@torch.inference_mode()
def confident_distances(
    method: Method, attributes: Tensor, confidence: Tensor, gallery: Extracted, par_distance: str = "euclidean"
) -> tuple[Tensor, Tensor]:
    """PAR and embedding distances [Q, G] of descriptions, before fusion.

    Args:
        method: encodes the descriptions.
        attributes: [Q, N] of 0 and 1; ignored where the confidence is 0.
        confidence: [Q, N] in 0..1, the same for all elements of an attribute group.
        gallery: the G images.
        par_distance: one of `PAR_DISTANCES`.
    """
    confidence = confidence.float()
    bits = attributes.float() * (confidence > 0)
    query, below = torch.zeros(()), 0.0
    for level in sorted({level for level in confidence.unique().tolist() if level > 0} | {1.0}):
        query = query + (level - below) * encode_descriptions(method, bits, confidence >= level)
        below = level
    par = par_distances(bits, confidence, gallery.scores, par_distance)
    return par, embedding_distances(query, gallery.embeddings)
