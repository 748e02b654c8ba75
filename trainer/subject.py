"""What the evaluation commands work on: a checkpoint, the dataset it is measured on, and what it says of the crops."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from accelerate import Accelerator
from safetensors import SafetensorError

from descry.trainer.cache import DEFAULT_FOLDER as PIXELS
from descry.trainer.cache import digest_images
from descry.trainer.checkpoint import Checkpoint, CheckpointError, load_checkpoint, write_atomically
from descry.trainer.config import ExperimentConfig, load_config
from descry.trainer.datasets import DatasetError, PersonDataset, load_dataset
from descry.trainer.extraction import Extracted, extract
from descry.trainer.protocols import Queries, category_queries

FEATURES = "runs/features"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Subject:
    """A checkpoint and the split it is measured on.

    Attributes:
        checkpoint: as loaded.
        config: its experiment, with the command line's overrides.
        dataset: all of the dataset that the config names.
        persons: the split of it.
    """

    checkpoint: Checkpoint
    config: ExperimentConfig
    dataset: PersonDataset
    persons: PersonDataset

    def category_queries(self) -> Queries:
        """Every complete category of the split, asked for once among all of its images.

        Raises:
            DatasetError: no image of the split has all attributes known.
        """
        queries = category_queries(self.persons, self.checkpoint.method.labels.categories)
        if not len(queries.attributes):
            root, split = self.config.data.root, self.persons.splits[0]
            raise DatasetError(f"{root}: no image of {split} has all attributes known")
        return queries


class Extractor:
    """`extract` of one checkpoint, on the device and from the crops of its experiment.

    With a folder of features a crop list is embedded once: a file of this folder holds what this checkpoint (by its
    digest and its method's settings) said of these images (path, size and time of change) at this size. Remove old ones
    with `rm`.

    Attributes:
        accelerator: the device that the experiment asks for.
    """

    def __init__(self, subject: Subject, features: Path | None = None) -> None:
        """Move the method to the device.

        Args:
            subject: whose checkpoint embeds.
            features: the folder; None = embed every time.
        """
        self.accelerator = Accelerator(cpu=subject.config.train.device == "cpu")
        self._features = features
        self._config, self._digest = subject.config, subject.checkpoint.digest
        self._method = subject.checkpoint.method.to(self.accelerator.device)

    def __call__(self, persons: PersonDataset) -> Extracted:
        """What the checkpoint says of crops.

        Raises:
            DatasetError: an image cannot be read, or the features cannot be written.
        """
        path = self._path(persons)
        if path and path.is_file():
            return _read(path, persons)
        workers, cache = self._config.train.workers, self._config.data.cache
        found = extract(self._method, persons, self._config.image, self.accelerator, workers, cache)
        if path and self.accelerator.is_main_process:
            _write(path, found)
        return found

    def _path(self, persons: PersonDataset) -> Path | None:
        if self._features is None:
            return None
        image, method = self._config.image, self._config.method
        digest = digest_images(persons.images, f"{self._digest} {method} {image.height} {image.width}")
        return self._features / f"{digest[:32]}.safetensors"


def _read(path: Path, persons: PersonDataset) -> Extracted:
    try:
        stored = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise DatasetError(f"{path} is damaged ({error}); remove it") from error
    return Extracted(stored["embeddings"], stored["scores"], persons)


def _write(path: Path, found: Extracted) -> None:
    content = {"embeddings": found.embeddings.contiguous(), "scores": found.scores.contiguous()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, safetensors.torch.save(content))
    except OSError as error:
        raise DatasetError(f"cannot write {path}: {error}; choose another folder with --features DIR") from error


def add_subject_flags(parser: argparse.ArgumentParser, splits: Sequence[str] = SPLITS, features: bool = True) -> None:
    """The flags that `load_subject` reads, `--split` and `--cache`, and that of `Extractor`, `--features`."""
    parser.add_argument("--split", default="test", choices=splits)
    parser.add_argument(
        "--cache", nargs="?", const=PIXELS, metavar="DIR", help=f"keep decoded pixels in DIR ({PIXELS}): --data.cache"
    )  # fmt: skip
    if features:
        parser.add_argument(
            "--features", nargs="?", const=Path(FEATURES), type=Path, metavar="DIR",
            help=f"keep embeddings and PAR scores in DIR ({FEATURES}), and take them from there",
        )  # fmt: skip


def load_subject(directory: Path, split: str, overrides: Sequence[str] = (), cache: str | None = None) -> Subject:
    """A checkpoint, its config with `overrides`, and a split of the dataset that they name.

    Args:
        directory: of the checkpoint.
        split: one of `SPLITS`.
        overrides: `--section.key=value`.
        cache: folder of decoded pixels, instead of the config's.

    Raises:
        CheckpointError: the checkpoint cannot be used, or the dataset has another schema.
        ConfigError: an override is wrong.
        DatasetError: the dataset cannot be used, or has no such split.
    """
    checkpoint = load_checkpoint(directory)
    pixels = [] if cache is None else [f"--data.cache={json.dumps(cache)}"]
    config = load_config(directory / "config.yaml", [*overrides, *pixels])
    dataset = load_dataset(config.data)
    persons = dataset.subset(split)
    if persons.schema != checkpoint.schema:
        raise CheckpointError(
            f"{config.data.root} has another schema than {directory}; give the dataset it was trained on"
        )
    if not len(persons):
        raise DatasetError(f"{config.data.root} has no {split} split")
    return Subject(checkpoint, config, dataset, persons)
