"""Re-identification: an image asks for the other images of its person (Market-1501, Zheng et al., ICCV 2015).

The distance is the cosine distance of the unit embeddings, whatever the method: for Cerberus, whose embedding holds one
unit vector a part, this is the paper's mean of five cosines.
"""

import numpy as np
import torch
from torch import Tensor

from descry.trainer.datasets import PersonDataset
from descry.trainer.datasets.persons import DISTRACTOR
from descry.trainer.extraction import Extracted
from descry.trainer.metrics import BLOCK, mean_metrics, query_metrics
from descry.trainer.protocols import check_query_images, reid_protocol
from descry.trainer.retrieval import embedding_distances
from descry.trainer.subject import Extractor


def reid_crops(dataset: PersonDataset) -> PersonDataset:
    """The crops that take part: the test split and the distractors, in the order of the dataset.

    Raises:
        DatasetError: the dataset marks no query image.
    """
    crops = dataset.rows(np.flatnonzero(np.isin(dataset.splits, ("test", DISTRACTOR))))
    check_query_images(crops)
    return crops


def reid_embeddings(crops: PersonDataset, tested: Extracted, embed: Extractor) -> Tensor:
    """Unit embeddings [n, D] of `reid_crops`; only the distractors are embedded.

    Args:
        crops: the crops.
        tested: what the method said of the test split.
        embed: says it of further crops.
    """
    embeddings = tested.embeddings.new_empty(len(crops), tested.embeddings.shape[1])
    distractors = torch.from_numpy(crops.splits == DISTRACTOR)
    embeddings[~distractors] = tested.embeddings
    if distractors.any():
        embeddings[distractors] = embed(crops.subset(DISTRACTOR)).embeddings
    return embeddings


def evaluate_reid(crops: PersonDataset, embeddings: Tensor) -> dict[str, float]:
    """Metrics of re-ID over all queries with a match, block by block of queries; see `mean_metrics`.

    Args:
        crops: test images and distractors.
        embeddings: unit rows [n, D] of them.

    Raises:
        DatasetError: none is marked as a query.
    """
    protocol = reid_protocol(crops)
    gallery = embeddings[protocol.gallery]
    measured = []
    for start in range(0, len(protocol.queries), BLOCK):
        rows = slice(start, start + BLOCK)
        distances = embedding_distances(embeddings[protocol.queries[rows]], gallery)
        measured.append(query_metrics(distances, protocol.relevant[rows], protocol.ignored[rows]))
    return mean_metrics(torch.cat(measured))
