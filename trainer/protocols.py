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

    What is right for them is worked out block by block: ten thousand queries of a hundred thousand images need no
    matrix of 10^9 cells.

    Attributes:
        attributes: uint8 [Q, N].
        categories: int64 [Q], the number of each description's category.
        labels: int64 [G], that of each image; `IGNORE` where it has none.
        seen: bool [Q], whether the category is among the training categories.
        sources: int64 [Q], the image that gave each description.
        gallery: the G images.
        query_set: which descriptions, one of `QUERY_SETS`.
        gallery_filter: which images a ranking leaves out, one of `GALLERY_FILTERS`.
    """

    attributes: Tensor
    categories: Tensor
    labels: Tensor
    seen: Tensor
    sources: Tensor
    gallery: PersonDataset
    query_set: str
    gallery_filter: str

    def __post_init__(self) -> None:
        """Refuse an unknown filter."""
        if self.gallery_filter not in GALLERY_FILTERS:
            raise DatasetError(f"gallery filter {self.gallery_filter!r} is not one of {', '.join(GALLERY_FILTERS)}")

    def truth(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Which images are relevant to some of the queries, and which their ranking leaves out: bool [rows, G] each."""
        relevant = self.categories[rows, None] == self.labels
        if self.gallery_filter == "none":
            return relevant, torch.zeros_like(relevant)
        return relevant, _same_camera(self.gallery, self.sources[rows])

    @property
    def relevant(self) -> Tensor:
        """`truth` of all queries: bool [Q, G]."""
        return self.truth(slice(None))[0]

    @property
    def ignored(self) -> Tensor:
        """`truth` of all queries: bool [Q, G]."""
        return self.truth(slice(None))[1]


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
    labels = match_rows(attributes, asked)
    seen = match_rows(asked, training_categories.cpu()) != IGNORE
    sources = _first_images(labels, len(asked), torch.from_numpy(gallery.queries))
    return Queries(asked, torch.arange(len(asked)), labels, seen, sources, gallery, "categories", gallery_filter)


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
    labels = match_rows(attributes, torch.unique(attributes[sources], dim=0))
    described = attributes[sources]
    seen = match_rows(described, training_categories.cpu()) != IGNORE
    return Queries(described, labels[sources], labels, seen, sources, gallery, "images", gallery_filter)


# `categories`: every distinct one is asked for once (ASMR, SAL). `images`: a category is asked for as often as it has
# re-ID query images, which the numbers of Cerberus fit.
QUERY_SETS = {"categories": category_queries, "images": image_queries}


def _first_images(labels: Tensor, count: int, preferred: Tensor) -> Tensor:
    """The first image of each category, among the preferred ones (bool [G]) where it has one: int64 [count]."""
    first = torch.empty(count, dtype=torch.int64)
    for allowed in (torch.ones_like(preferred), preferred):
        images = (allowed & (labels != IGNORE)).nonzero()[:, 0]
        found, where = np.unique(labels[images].numpy(), return_index=True)
        first[torch.from_numpy(found)] = images[torch.from_numpy(where)]
    return first


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
