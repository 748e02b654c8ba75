"""t-SNE maps (van der Maaten, Hinton, 2008): which images are put on them, and where they lie."""

import numpy as np
import torch
from torch import Tensor

from descry.trainer.datasets import PersonDataset
from descry.trainer.labels import match_rows
from descry.trainer.losses import IGNORE
from descry.trainer.schema import UNKNOWN

IMAGES = 40  # of a category at most


def project(features: Tensor) -> np.ndarray:
    """The t-SNE map [n, 2] of features float [n, F], n > 3; the same in every run."""
    from sklearn.manifold import TSNE  # takes seconds to import, and nothing else needs it

    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features.numpy())


def frequent_categories(
    persons: PersonDataset, count: int, training: Tensor | None = None, seen: bool = True
) -> list[np.ndarray]:
    """Image indices of the `count` most frequent categories, at most `IMAGES` of each.

    Args:
        persons: the split.
        count: categories at most.
        training: uint8 [C, N]; given, only categories that are among them count, or that are not.
        seen: which of the two.
    """
    complete = np.flatnonzero((persons.attributes != UNKNOWN).all(axis=1))
    rows, labels = np.unique(persons.attributes[complete], axis=0, return_inverse=True)
    sizes = np.bincount(labels.ravel(), minlength=len(rows))
    if training is not None:
        known = match_rows(torch.from_numpy(rows), training.cpu()) != IGNORE
        sizes *= known.numpy() == seen
    order = np.argsort(-sizes, kind="stable")[:count]
    return [complete[labels.ravel() == label][:IMAGES] for label in order if sizes[label]]
