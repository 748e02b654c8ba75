"""Pictures of Cerberus: where each part looks (its Figure 8), and whom its embedding tells apart (Figure 9).

Red is where the features make a part's representation what it is, blue where they speak against it. The persons of the
t-SNE map all share one semantic ID: the attributes of one part do not tell them apart.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from descry.trainer.datasets import DatasetError, PersonDataset
from descry.trainer.drawing import color_of, even_steps, page, save
from descry.trainer.methods import Cerberus
from descry.trainer.transforms import CropDataset
from descry.trainer.tsne import project

PERSONS = 10
IMAGES = 30  # of a person at most


@dataclass(frozen=True)
class SharedId:
    """Persons who share a semantic ID.

    Attributes:
        name: the part and its attributes, e.g. `upper: red, short`.
        rows: int64 [n], their images.
    """

    name: str
    rows: np.ndarray


def persons_of_one_id(method: Cerberus, persons: PersonDataset) -> SharedId:
    """Images of `PERSONS` persons, the most photographed of the semantic ID that most persons share.

    Raises:
        DatasetError: no two persons share one.
    """
    known = persons.persons >= 0
    attributes = torch.from_numpy(persons.attributes)
    best: tuple[int, str, np.ndarray] = (1, "", np.empty(0, np.int64))
    for part, space in zip(method.parts, method.spaces, strict=True):
        labels = space.labels(attributes.to(space.table.device)).cpu().numpy()
        for number in np.unique(labels[(labels >= 0) & known]):
            rows = np.flatnonzero((labels == number) & known)
            count = len(np.unique(persons.persons[rows]))
            if count > best[0]:
                names = [method.schema.elements[column] for column in space.columns[space.table[number] > 0].tolist()]
                best = count, f"{part}: {', '.join(names) or 'none of its attributes'}", rows
    if best[0] < 2:
        raise DatasetError(f"{persons.name}: no two persons of this split share a semantic ID")
    return SharedId(best[1], _most_photographed(best[2], persons.persons))


def _most_photographed(rows: np.ndarray, persons: np.ndarray) -> np.ndarray:
    people, counts = np.unique(persons[rows], return_counts=True)
    chosen = people[np.argsort(-counts, kind="stable")[:PERSONS]]
    return np.concatenate([rows[persons[rows] == person][:IMAGES] for person in chosen])


def draw_persons(embeddings: Tensor, persons: np.ndarray, title: str, path: Path) -> None:
    """A t-SNE map of embeddings float [n, D], one colour for each of `persons` int64 [n]."""
    points, figure = project(embeddings), page(6, 5)
    axis = figure.subplots()
    for number, person in enumerate(np.unique(persons)):
        own = points[persons == person]
        axis.scatter(own[:, 0], own[:, 1], s=18, color=color_of(number), label=str(person))
    axis.set(xticks=[], yticks=[])
    axis.set_title(textwrap.fill(title.replace("_", " "), 70), fontsize=10)
    axis.legend(title="person", fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def part_maps(method: Cerberus, crops: CropDataset, count: int) -> tuple[Tensor, Tensor]:
    """Photos uint8 [B, 3, H, W] of `count` crops, evenly spaced, and where each part looks: float [B, G, h, w]."""
    images = torch.stack([crops[index]["image"] for index in even_steps(len(crops), count)])
    device = next(method.parameters()).device
    return images, method.part_attention(images.to(device)).cpu()


def draw_parts(images: Tensor, maps: Tensor, names: Sequence[str], path: Path) -> None:
    """Photos uint8 [B, 3, H, W], a line each, and over them the maps [B, G, h, w] of the parts `names`."""
    height, width = images.shape[2:]
    enlarged = functional.interpolate(maps, (height, width), mode="bicubic")
    figure = page(1.2 * (len(names) + 1), 1.2 * len(images) * height / width + 0.3)
    lines = figure.subplots(len(images), len(names) + 1, squeeze=False)
    for line, image, own in zip(lines, images, enlarged, strict=True):
        photo = image.permute(1, 2, 0).numpy()
        line[0].imshow(photo)
        for axis, values in zip(line[1:], own, strict=True):
            limit = float(values.abs().max()) or 1.0
            axis.imshow(photo.mean(axis=2), cmap="gray")
            axis.imshow(values.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.5)
        for axis in line:
            axis.set(xticks=[], yticks=[])
    for axis, name in zip(lines[0], ("photo", *names), strict=True):
        axis.set_title(name, fontsize=9)
    save(figure, path)
