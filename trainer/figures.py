"""Pictures of a checkpoint: how it was trained, what it finds, what its space looks like, and where it looks.

    python -m descry.trainer.figures CHECKPOINT [--training PNG] [--ranked PNG] [--embeddings PNG] [--similarity PNG]
        [--attention PNG] [--synthetic PNG] [--parts PNG] [--persons PNG] [--split test] [--data.root=DIR]

Each of these flags draws one picture, in the format that the file's name ends in; docs/evaluation.md says what each
shows.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from descry.trainer.attention_figure import attention_rows, draw_attention
from descry.trainer.checkpoint import CheckpointError
from descry.trainer.config import ConfigError
from descry.trainer.datasets import DatasetError
from descry.trainer.embeddings_figure import draw_joint_space, joint_space
from descry.trainer.evaluation import query_distances
from descry.trainer.extraction import Extracted
from descry.trainer.features_figure import draw_features, feature_panels
from descry.trainer.methods import METHODS, SAL, Cerberus, Method, MultiTask
from descry.trainer.neighbourhood import average_neighbours
from descry.trainer.parts_figure import draw_parts, draw_persons, part_maps, persons_of_one_id
from descry.trainer.ranked_figure import draw_ranked_grid, ranked_rows
from descry.trainer.retrieval import Fusion, fuse
from descry.trainer.similarity import similarity_curves
from descry.trainer.similarity_figure import draw_similarity
from descry.trainer.state import History
from descry.trainer.subject import Extractor, Subject, add_subject_flags, load_subject
from descry.trainer.training_figure import draw_training_curves
from descry.trainer.transforms import CropDataset

COUNTS = ("queries_shown", "categories", "photos")

Kind = TypeVar("Kind", bound=Method)


@dataclass(frozen=True)
class Request:
    """What the command line asks for; only what a picture needs is loaded and embedded, and that once.

    Attributes:
        options: of `command_line`.
        overrides: `--section.key=value`.
    """

    options: argparse.Namespace
    overrides: Sequence[str]

    def load(self, directory: Path) -> Subject:
        """A checkpoint and the split."""
        return load_subject(directory, self.options.split, self.overrides, self.options.cache)

    @cached_property
    def subject(self) -> Subject:
        """The checkpoint."""
        return self.load(self.options.checkpoint)

    @cached_property
    def embed(self) -> Extractor:
        """Its extractor."""
        return Extractor(self.subject, self.options.features)

    @cached_property
    def gallery(self) -> Extracted:
        """What it says of the split."""
        return self.embed(self.subject.persons)

    @cached_property
    def crops(self) -> CropDataset:
        """The split as the checkpoint sees it."""
        return CropDataset(self.subject.persons, self.subject.config.image, cache=self.subject.config.data.cache)

    def method(self, kind: type[Kind], flag: str) -> Kind:
        """The method, on its device.

        Raises:
            CheckpointError: it is another than the one that `flag` shows.
        """
        method = self.subject.checkpoint.method
        if not isinstance(method, kind):
            (shown,) = (name for name, known in METHODS.items() if known is kind)
            raise CheckpointError(
                f"{self.options.checkpoint} is of method {self.subject.config.method['name']}; {flag} is for {shown}"
            )
        return method.to(self.embed.accelerator.device)


def _training(request: Request, path: Path) -> None:
    history = History(request.options.checkpoint)
    entries = history.read()
    if not entries:
        raise CheckpointError(f"{history.path} is not there, or empty: only a folder that was trained in has one")
    draw_training_curves(entries, path)


def _ranked(request: Request, path: Path) -> None:
    queries = request.subject.category_queries()
    checkpoint = request.subject.checkpoint
    fusion = Fusion(**checkpoint.metrics["fusion"])
    gallery = average_neighbours(request.gallery, fusion.neighbours)
    distances = fuse(*query_distances(checkpoint.method, queries, gallery, fusion.par_distance), fusion)
    draw_ranked_grid(ranked_rows(queries, distances, gallery.crops, request.options.queries_shown), path)


def _embeddings(request: Request, path: Path) -> None:
    method = request.subject.checkpoint.method
    draw_joint_space(joint_space(method, request.gallery, request.options.categories), path)


def _similarity(request: Request, path: Path) -> None:
    curves = {request.options.checkpoint.name: similarity_curves(request.subject.checkpoint.method, request.gallery)}
    for directory in request.options.compare:
        subject = request.load(directory)
        gallery = Extractor(subject, request.options.features)(subject.persons)
        curves[directory.name] = similarity_curves(subject.checkpoint.method, gallery)
    draw_similarity(curves, path)


def _attention(request: Request, path: Path) -> None:
    method, options = request.method(MultiTask, "--attention"), request.options
    elements = options.attributes.split(",") if options.attributes else ()
    draw_attention(*attention_rows(method, request.crops, options.photos, elements, options.block), path)


def _synthetic(request: Request, path: Path) -> None:
    panels = feature_panels(request.method(SAL, "--synthetic"), request.subject, request.options.categories)
    draw_features(panels, path)
    for name, panel in panels.items():
        print(f"{name}: {len(panel.real)} images, near {panel.near():.3f}")


def _parts(request: Request, path: Path) -> None:
    method = request.method(Cerberus, "--parts")
    draw_parts(*part_maps(method, request.crops, request.options.photos), list(method.parts), path)


def _persons(request: Request, path: Path) -> None:
    shared = persons_of_one_id(request.method(Cerberus, "--persons"), request.subject.persons)
    people = request.subject.persons.rows(shared.rows)
    draw_persons(request.embed(people).embeddings, people.persons, shared.name, path)


# A flag, what it shows, and what draws it.
FIGURES: dict[str, tuple[str, Callable[[Request, Path], None]]] = {
    "training": ("losses and validation metrics by epoch", _training),
    "ranked": ("descriptions, what they find first, and what is wrong with it", _ranked),
    "embeddings": ("t-SNE map of images and descriptions of the most frequent categories", _embeddings),
    "similarity": ("cosines by what descriptions share", _similarity),
    "attention": ("where attribute tokens look (multitask)", _attention),
    "synthetic": ("t-SNE map of real image features, and of those made from descriptions (sal)", _synthetic),
    "parts": ("where each part looks (cerberus)", _parts),
    "persons": ("t-SNE map of persons who share a semantic ID (cerberus)", _persons),
}


def command_line() -> argparse.ArgumentParser:
    """A flag for each picture, and those that say what is on it."""
    parser = argparse.ArgumentParser(
        prog="figures", description=__doc__.splitlines()[0], epilog="--section.key=value as in training"
    )
    parser.add_argument("checkpoint", type=Path)
    for name, (shown, _) in FIGURES.items():
        parser.add_argument(f"--{name}", type=Path, metavar="PNG", help=shown)
    add_subject_flags(parser)
    parser.add_argument(
        "--compare", type=Path, nargs="+", default=[], metavar="CHECKPOINT", help="further similarity curves"
    )
    parser.add_argument("--queries-shown", type=int, default=5, metavar="N", help="lines of --ranked")
    parser.add_argument("--categories", type=int, default=8, metavar="N", help="on --embeddings and --synthetic")
    parser.add_argument("--photos", type=int, default=4, metavar="N", help="lines of --attention and --parts")
    parser.add_argument("--attributes", default="", metavar="GROUP=VALUE,…", help="columns of --attention")
    parser.add_argument("--block", type=int, default=0, metavar="N", help="of --attention, from 0")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    parser = command_line()
    options, overrides = parser.parse_known_args(arguments)
    asked = {draw: path for name, (_, draw) in FIGURES.items() if (path := getattr(options, name))}
    if not asked:
        parser.error(f"nothing to draw: give one or more of {', '.join(f'--{name}' for name in FIGURES)}")
    for name in COUNTS:
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is at least 1, not {getattr(options, name)}")
    request = Request(options, overrides)
    try:
        for draw, path in asked.items():
            draw(request, path)
    except (CheckpointError, ConfigError, DatasetError, ValueError) as error:
        print(f"figures: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
