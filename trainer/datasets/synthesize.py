"""Renders the synthetic dataset into a folder."""

import argparse
import sys
from pathlib import Path

import numpy as np

from descry.trainer.datasets import folder
from descry.trainer.datasets.persons import DataConfig, DatasetError
from descry.trainer.datasets.synthetic import Parameters, generate


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from `128x64`.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    height, separator, width = text.partition("x")
    if not (separator and height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, e.g. 128x64")
    return int(height), int(width)


def main(arguments: list[str] | None = None) -> int:
    """Render, and say where; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m descry.trainer.datasets.synthesize", description=__doc__)
    parser.add_argument("root", type=Path, help="folder to make")
    parser.add_argument("--persons", type=int, default=Parameters.persons)
    parser.add_argument("--images-per-person", type=int, default=Parameters.images_per_person)
    parser.add_argument("--cameras", type=int, default=Parameters.cameras)
    parser.add_argument("--size", type=parse_size, default=Parameters.size, help="HEIGHTxWIDTH in pixels")
    parser.add_argument("--seed", type=int, default=Parameters.seed)
    parser.add_argument("--workers", type=int, default=2, help="processes; any number gives the same dataset")
    given = parser.parse_args(arguments)
    try:
        generate(
            given.root, given.persons, given.images_per_person, given.cameras, given.size, given.seed, given.workers
        )
        dataset = folder.load(DataConfig(name="folder", root=str(given.root)))
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{given.root}: {len(dataset)} images of {len(np.unique(dataset.persons))} persons")
    return 0


if __name__ == "__main__":
    sys.exit(main())
