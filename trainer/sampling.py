"""The order in which a stage sees its images: plain shuffling, or P labels x K images in every batch.

`identity` is the batch of the triplet loss (Hermans, Beyer, Leibe, 2017): P persons x K images. `category` does the
same with attribute vectors, so that a rare description is seen as often as a common one.
"""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

from descry.trainer.datasets.persons import PersonDataset
from descry.trainer.datasets.splits import category_numbers
from descry.trainer.schema import UNKNOWN


def category_labels(persons: PersonDataset) -> np.ndarray:
    """Index of each image's attribute vector among the distinct complete ones: int64 [n]; -1 where one is unknown."""
    complete = (persons.attributes != UNKNOWN).all(axis=1)
    labels = np.full(len(persons), -1, np.int64)
    labels[complete] = category_numbers(persons.attributes[complete])
    return labels


# What a batch is balanced over; `plain` is balanced over nothing.
SAMPLERS: dict[str, Callable[[PersonDataset], np.ndarray] | None] = {
    "plain": None,
    "identity": lambda persons: persons.persons,
    "category": category_labels,
}


class BalancedSampler(Sampler[int]):
    """Every run of `batch_size` indices holds `batch_size / images_per_label` labels, `images_per_label` images each.

    The labels of a batch differ; each is drawn once before any is drawn again. The images of a label follow the same
    rule on their own; a label with fewer than `images_per_label` repeats them only as far as needed. The order is a
    function of (seed, epoch) alone, so that every process and a resumed run draw the same batches.

    Args:
        labels: int64 [n]; images with a negative one are left out.
        batch_size: indices a batch.
        images_per_label: K.
        seed: of the order, at least 0.

    Raises:
        ValueError: `batch_size` is no multiple of `images_per_label`, or there are fewer labels than a batch holds.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, images_per_label: int, seed: int) -> None:
        """Sort the images by label."""
        if images_per_label < 1 or batch_size % images_per_label:
            raise ValueError(
                f"a batch of {batch_size} images cannot hold {images_per_label} of each label: make batch_size a "
                "multiple of images_per_label"
            )
        self.batch_size, self.images_per_label = batch_size, images_per_label
        self.seed, self.epoch = seed, 0
        known = np.flatnonzero(labels >= 0)
        names, counts = np.unique(labels[known], return_counts=True)
        wanted = batch_size // images_per_label
        if len(names) < wanted:
            raise ValueError(
                f"a batch of {batch_size} images, {images_per_label} of each label, needs {wanted} labels, but the "
                f"{len(labels)} images have {len(names)}: "
                + (f"lower batch_size to {len(names) * images_per_label}" if len(names) else "use sampler plain")
            )
        order = known[np.argsort(labels[known], kind="stable")]
        self.images = np.split(order, np.cumsum(counts)[:-1])
        self.labelled = len(known)

    def __len__(self) -> int:
        """Indices an epoch: the labelled images, rounded down to whole batches."""
        return self.labelled // self.batch_size * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn; Accelerate's loaders call this."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield the epoch's indices, batch after batch."""
        generator = np.random.default_rng((self.seed, self.epoch))
        labels = _Cycle(np.arange(len(self.images)), generator)
        images = [_Cycle(rows, generator) for rows in self.images]
        for _ in range(len(self) // self.batch_size):
            for label in labels.draw(self.batch_size // self.images_per_label):
                yield from images[label].draw(self.images_per_label).tolist()


class _Cycle:
    """Draws from `items` without replacement, and from all of them again when they are used up."""

    def __init__(self, items: np.ndarray, generator: np.random.Generator) -> None:
        self.items, self.generator, self.left = items, generator, items[:0]

    def draw(self, count: int) -> np.ndarray:
        drawn, self.left = self.left[:count], self.left[count:]
        while len(drawn) < count:
            fresh = self.generator.permutation(self.items)
            # What this draw has already goes last: it is repeated only after everything else.
            repeats = (fresh[:, None] == drawn).sum(axis=1)
            fresh = fresh[np.argsort(repeats, kind="stable")]
            missing = count - len(drawn)
            drawn, self.left = np.concatenate([drawn, fresh[:missing]]), fresh[missing:]
        return drawn


def build_sampler(
    name: str, persons: PersonDataset, batch_size: int, images_per_label: int, seed: int
) -> BalancedSampler | None:
    """The sampler `name` of `SAMPLERS` over the rows of `persons`; None for `plain`: the loader shuffles.

    Raises:
        ValueError: the batch cannot be balanced; see `BalancedSampler`.
    """
    label = SAMPLERS[name]
    if label is None:
        return None
    try:
        return BalancedSampler(label(persons), batch_size, images_per_label, seed)
    except ValueError as error:
        raise ValueError(f"sampler {name}: {error}") from error
