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
    """Complete descriptions that a gallery is searched for.

    Attributes:
        attributes: uint8 [Q, N].
        relevant: bool [Q, G].
        seen: bool [Q], whether the category is among the training categories.
        ignored: bool [Q, G], images that this query's ranking leaves out.
        query_set: which descriptions, one of `QUERY_SETS`.
        gallery_filter: what `ignored` follows, one of `GALLERY_FILTERS`.
    """

    attributes: Tensor
    relevant: Tensor
    seen: Tensor
    ignored: Tensor
    query_set: str
    gallery_filter: str


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
    attributes = torch.from_numpy(gallery.attributes)
    asked = torch.unique(attributes[(attributes != UNKNOWN).all(dim=1)], dim=0)
    relevant = match_rows(attributes, asked)[None, :] == torch.arange(len(asked))[:, None]
    seen = match_rows(asked, training_categories.cpu()) != IGNORE
    ignored = _ignored(gallery, _sources(relevant, torch.from_numpy(gallery.queries)), gallery_filter)
    return Queries(asked, relevant, seen, ignored, "categories", gallery_filter)


def image_queries(gallery: PersonDataset, training_categories: Tensor, gallery_filter: str = "none") -> Queries:
    """The description of each re-ID query image with complete labels; see `category_queries`.

    With `same_camera` the image that gave the description, and all of its person by its camera, are ignored.

    Raises:
        DatasetError: the filter is unknown, or no query image has complete labels.
    """
    check_query_images(gallery)
    attributes = torch.from_numpy(gallery.attributes)
    sources = torch.from_numpy(np.flatnonzero(gallery.queries & (gallery.attributes != UNKNOWN).all(axis=1)))
    if not len(sources):
        raise DatasetError(f"{gallery.name}: no re-ID query image has all attributes known; ask for categories instead")
    categories = torch.unique(attributes[sources], dim=0)
    category = match_rows(attributes, categories)
    relevant = category[None, :] == category[sources, None]
    seen = match_rows(attributes[sources], training_categories.cpu()) != IGNORE
    ignored = _ignored(gallery, sources, gallery_filter)
    return Queries(attributes[sources], relevant, seen, ignored, "images", gallery_filter)


# `categories`: every distinct one is asked for once (ASMR, SAL). `images`: a category is asked for as often as it has
# re-ID query images, which the numbers of Cerberus fit.
QUERY_SETS = {"categories": category_queries, "images": image_queries}


def _ignored(gallery: PersonDataset, sources: Tensor, gallery_filter: str) -> Tensor:
    if gallery_filter not in GALLERY_FILTERS:
        raise DatasetError(f"gallery filter {gallery_filter!r} is not one of {', '.join(GALLERY_FILTERS)}")
    if gallery_filter == "none":
        return torch.zeros(len(sources), len(gallery), dtype=torch.bool)
    return _same_camera(gallery, sources)


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


def check_query_images(dataset: PersonDataset) -> None:
    """Refuse a dataset without re-ID query images.

    Raises:
        DatasetError: it marks none; the message says what to do.
    """
    if not dataset.queries.any():
        raise DatasetError(
            f"{dataset.name} marks no re-ID query image, and only the test split of the datasets market1501 and "
            "dukemtmc does: evaluate there, without --reid, or with --queries categories"
        )


def reid_protocol(dataset: PersonDataset) -> Reid:
    """Market-1501's protocol: the gallery is the test images that are no queries, and the distractors.

    Raises:
        DatasetError: the dataset marks no query image.
    """
    check_query_images(dataset)
    queries = np.flatnonzero(dataset.queries)
    gallery = np.flatnonzero(~dataset.queries & np.isin(dataset.splits, ("test", DISTRACTOR)))
    persons, cameras = torch.from_numpy(dataset.persons), torch.from_numpy(dataset.cameras)
    same_person = (persons[queries, None] == persons[gallery]) & (persons[gallery] >= 0)
    same_camera = cameras[queries, None] == cameras[gallery]
    return Reid(queries, gallery, same_person & ~same_camera, same_person & same_camera)
