"""Who is searched among whom: the queries, the gallery and the ground truth of attribute search and of re-ID."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descry.trainer.datasets.persons import DISTRACTOR, DatasetError, PersonDataset
from descry.trainer.labels import match_rows
from descry.trainer.losses import IGNORE
from descry.trainer.schema import UNKNOWN

# `none`: every image of the gallery counts (ASMR). `same_camera`: images of the person whose image gave the
# description, by the same camera, are left out of the ranking (SAL).
GALLERY_FILTERS = ("none", "same_camera")


@dataclass(frozen=True)
class Queries:
    """The distinct complete categories of a gallery.

    Attributes:
        attributes: uint8 [Q, N].
        relevant: bool [Q, G].
        seen: bool [Q], whether the category is among the training categories.
        ignored: bool [Q, G], images that this query's ranking leaves out.
    """

    attributes: Tensor
    relevant: Tensor
    seen: Tensor
    ignored: Tensor


def category_queries(gallery: PersonDataset, training_categories: Tensor, gallery_filter: str = "none") -> Queries:
    """One query a category; an image with an unknown label is never asked for.

    Args:
        gallery: the test images that are searched.
        training_categories: uint8 [C, N].
        gallery_filter: one of `GALLERY_FILTERS`. With `same_camera` a category's description is that of its first
            re-ID query image (of its first image where there is none); this image and all of the same person by the
            same camera are ignored.

    Raises:
        DatasetError: the filter is unknown.
    """
    if gallery_filter not in GALLERY_FILTERS:
        raise DatasetError(f"gallery filter {gallery_filter!r} is not one of {', '.join(GALLERY_FILTERS)}")
    attributes = torch.from_numpy(gallery.attributes)
    asked = torch.unique(attributes[(attributes != UNKNOWN).all(dim=1)], dim=0)
    owner = match_rows(attributes, asked)
    relevant = owner[None, :] == torch.arange(len(asked))[:, None]
    seen = match_rows(asked, training_categories.cpu()) != IGNORE
    ignored = torch.zeros_like(relevant)
    if gallery_filter == "same_camera":
        ignored = _same_camera(gallery, _sources(relevant, torch.from_numpy(gallery.queries)))
    return Queries(asked, relevant, seen, ignored)


def _sources(relevant: Tensor, queries: Tensor) -> Tensor:
    """The image that gives each category its description: int64 [Q]."""
    preferred = relevant & queries if queries.any() else relevant
    preferred = torch.where(preferred.any(dim=1, keepdim=True), preferred, relevant)
    return preferred.int().argmax(dim=1)


def _same_camera(gallery: PersonDataset, sources: Tensor) -> Tensor:
    """Images of the person and camera of each source, and the source itself: bool [Q, G]."""
    persons, cameras = torch.from_numpy(gallery.persons), torch.from_numpy(gallery.cameras)
    same = (persons[sources, None] == persons) & (cameras[sources, None] == cameras)
    known = (persons >= 0) & (cameras >= 0)
    return (same & known) | (sources[:, None] == torch.arange(len(gallery)))


@dataclass(frozen=True)
class Reid:
    """The re-ID benchmark: one image asks for the other images of its person.

    Attributes:
        queries: int64 [Q], rows of the dataset.
        gallery: int64 [G], rows of the dataset.
        relevant: bool [Q, G], the same person seen by another camera.
        ignored: bool [Q, G], the same person seen by the same camera: neither right nor wrong.
    """

    queries: np.ndarray
    gallery: np.ndarray
    relevant: Tensor
    ignored: Tensor


def reid_protocol(dataset: PersonDataset) -> Reid:
    """Market-1501's protocol: the gallery is the test images that are no queries, and the distractors.

    Raises:
        DatasetError: the dataset marks no query image.
    """
    if not dataset.queries.any():
        raise DatasetError(f"{dataset.name} marks no re-ID query image; only Market-1501's layout does")
    queries = np.flatnonzero(dataset.queries)
    gallery = np.flatnonzero(~dataset.queries & np.isin(dataset.splits, ("test", DISTRACTOR)))
    persons, cameras = torch.from_numpy(dataset.persons), torch.from_numpy(dataset.cameras)
    same_person = persons[queries, None] == persons[gallery]
    same_camera = cameras[queries, None] == cameras[gallery]
    return Reid(queries, gallery, same_person & ~same_camera, same_person & same_camera)
