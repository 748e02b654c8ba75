"""Pictures of Cerberus: where each part looks (its Figure 8), and whom its embedding tells apart (Figure 9).

    python -m descry.trainer.parts_figure CHECKPOINT [--parts PNG] [--persons PNG] [--split test] [--data.root=DIR]

Red is where the features make a part's representation what it is, blue where they speak against it. The persons of the
t-SNE map (van der Maaten, Hinton, 2008) all share one semantic ID: the attributes of one part do not tell them apart.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from descry.trainer.checkpoint import CheckpointError
from descry.trainer.config import ConfigError
from descry.trainer.datasets import DatasetError, PersonDataset
from descry.trainer.features_figure import project
from descry.trainer.methods import Cerberus
from descry.trainer.subject import Extractor, add_subject_flags, load_subject
from descry.trainer.transforms import CropDataset

matplotlib.use("Agg")

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
    points, colors = project(embeddings), matplotlib.colormaps["tab10"]
    figure = Figure(figsize=(6, 5.2), facecolor="white", layout="constrained")
    axis = figure.subplots()
    for number, person in enumerate(np.unique(persons)):
        own = points[persons == person]
        axis.scatter(own[:, 0], own[:, 1], s=18, color=colors(number % 10), label=str(person))
    axis.set(title=title, xticks=[], yticks=[])
    axis.legend(title="person", fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def draw_parts(images: Tensor, maps: Tensor, names: Sequence[str], path: Path) -> None:
    """Photos uint8 [B, 3, H, W], a line each, and over them the maps [B, G, h, w] of the parts `names`."""
    height, width = images.shape[2:]
    enlarged = functional.interpolate(maps, (height, width), mode="bicubic")
    size = (1.2 * (len(names) + 1), 1.2 * len(images) * height / width + 0.3)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def write_figures(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Draw what the command line asks for.

    Raises:
        CheckpointError: the checkpoint cannot be used, or has no parts.
        DatasetError: the dataset cannot be used, or no two persons share a semantic ID.
    """
    subject = load_subject(options.checkpoint, options.split, overrides, options.cache)
    method, persons = subject.checkpoint.method, subject.persons
    if not isinstance(method, Cerberus):
        raise CheckpointError(f"{options.checkpoint} has no parts: this figure is for method cerberus")
    embed = Extractor(subject, options.features)
    if options.parts:
        crops = CropDataset(persons, subject.config.image, cache=subject.config.data.cache)
        chosen = np.linspace(0, len(crops) - 1, options.photos).round().astype(int)
        images = torch.stack([crops[index]["image"] for index in chosen])
        maps = method.part_attention(images.to(embed.accelerator.device)).cpu()
        draw_parts(images, maps, list(method.parts), options.parts)
    if options.persons:
        shared = persons_of_one_id(method, persons)
        people = persons.rows(shared.rows)
        draw_persons(embed(people).embeddings, people.persons, shared.name, options.persons)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    parser = argparse.ArgumentParser(
        description="Draw what the parts of Cerberus see.", epilog="--section.key=value as in training"
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--parts", type=Path, metavar="PNG", help="where each part looks, on a few photos")
    parser.add_argument("--persons", type=Path, metavar="PNG", help="embeddings of persons who share a semantic ID")
    add_subject_flags(parser)
    parser.add_argument("--photos", type=int, default=4, help="lines of the maps")
    options, overrides = parser.parse_known_args(arguments)
    if not (options.parts or options.persons):
        parser.error("nothing to draw: give --parts, --persons, or both")
    if options.photos < 1:
        parser.error(f"--photos is at least 1, not {options.photos}")
    try:
        write_figures(options, overrides)
    except (CheckpointError, ConfigError, DatasetError) as error:
        print(f"parts_figure: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
