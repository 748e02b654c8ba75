"""Images that are near every description, and a space of unit vectors in which they are not.

CSLS (Conneau et al., *Word translation without parallel data*, ICLR 2018) on the side of the images: the similarity of
description q and image g is cos(q, g) - beta * r(g), r(g) the mean of the `NEIGHBOURS` largest cosines of g to the
embeddings of training categories. Two more numbers in each vector make this an inner product of unit vectors, so that a
gallery, an index and a server need not know of it:

    q' = [q, 1, 0] / sqrt(2),  g' = [c g, -c beta r(g), sqrt(1 - c^2 (1 + beta^2 r(g)^2))],  c = 1 / sqrt(1 + beta^2)

    q' . g' = c (cos(q, g) - beta r(g)) / sqrt(2)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = 10
EXTRA = 2  # numbers that each vector gains


def crowding(images: Tensor, categories: Tensor) -> Tensor:
    """R [B, 1] in -1..1 of unit rows images [B, D] and training categories [C, D]."""
    return (images @ categories.T).topk(min(NEIGHBOURS, len(categories)), dim=1).values.mean(dim=1, keepdim=True)


def lift_images(images: Tensor, crowding: Tensor, strength: float) -> Tensor:
    """Unit rows g' [B, D + 2] of unit rows g [B, D] and r [B, 1]; `strength` is beta."""
    scale = (1 + strength**2) ** -0.5
    offset = strength * crowding
    rest = (1 - scale**2 * (1 + offset.square())).clamp(min=0).sqrt()
    return torch.cat([scale * images, -scale * offset, rest], dim=1)


def lift_descriptions(descriptions: Tensor) -> Tensor:
    """Unit rows q' [B, D + 2] of unit rows q [B, D]."""
    return F.pad(F.pad(descriptions, (0, 1), value=1.0), (0, 1)) / 2**0.5
