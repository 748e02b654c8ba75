"""Database-side augmentation: each image of a gallery is searched as the mean of itself and its nearest ones.

Arandjelovic and Zisserman (*Three things everyone should know to improve object retrieval*, CVPR 2012) with the weights
of Radenovic et al. (*Fine-tuning CNN image retrieval with no human annotation*, 2018), cos^3. The nearest images of a
crop are mostly of the same person, so a bag that is hidden in one of them counts through the others. It needs no
label, no query and no camera; it does depend on what else is in the gallery.
"""

from dataclasses import replace

import torch
from torch import Tensor

from descry.trainer.extraction import Extracted

POWER = 3
ROWS = 1024  # whose similarities to all are held at a time


def nearest(embeddings: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest `count` rows of each of `embeddings` [G, D], itself among them: int64 and float weights [G, count].

    The weights, max(cosine, 0)^3, are divided by their sum. `count` is at most G.
    """
    blocks = [(block @ embeddings.T).topk(count, dim=1) for block in embeddings.split(ROWS)]
    rows = torch.cat([block.indices for block in blocks])
    weights = torch.cat([block.values for block in blocks]).clamp(min=0) ** POWER
    return rows, weights / weights.sum(dim=1, keepdim=True)


def average_neighbours(gallery: Extracted, neighbours: int) -> Extracted:
    """The gallery with each embedding and each PAR score replaced by the weighted mean over its nearest images.

    Embeddings are not made unit rows again: the inner product with a query is then the mean of the neighbours' cosines,
    so that an image whose neighbours disagree comes up less.

    Args:
        gallery: of G images.
        neighbours: how many, the image itself not counted; 0 = the gallery as it is.
    """
    if not neighbours:
        return gallery
    rows, weights = nearest(gallery.embeddings, min(neighbours + 1, len(gallery.embeddings)))
    embeddings, scores = (
        torch.cat([(near[..., None] * values[some]).sum(dim=1) for some, near in _blocks(rows, weights)])
        for values in (gallery.embeddings, gallery.scores)
    )
    return replace(gallery, embeddings=embeddings, scores=scores.clamp(0, 1))


def _blocks(rows: Tensor, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(rows.split(ROWS), weights.split(ROWS), strict=True))
