"""The built-in dataset: synthetic pedestrians, rendered once into a folder that `folder.load` reads."""

import csv
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from descry.trainer.datasets import folder
from descry.trainer.datasets.pedestrian_figure import Appearance, Build, Person
from descry.trainer.datasets.pedestrian_population import SCHEMA, draw_category, draw_population
from descry.trainer.datasets.pedestrian_scene import camera_of
from descry.trainer.datasets.pedestrians import render
from descry.trainer.datasets.persons import DataConfig, DatasetError, PersonDataset
from descry.trainer.datasets.table import SEPARATOR

# Part of what `synthetic.json` records: raise it when the same parameters would render other pixels.
VERSION = 1
PARAMETERS_FILE = "synthetic.json"
PERSONS_A_TASK = 4
FIRST_MORNING = datetime(2024, 5, 6, 8)


@dataclass(frozen=True)
class Parameters:
    """What determines every byte of a synthetic dataset.

    Attributes:
        persons: at least 10.
        images_per_person: at least 1.
        cameras: at least 1.
        size: height and width of the crops in pixels, at least 32 x 16 and no wider than high.
        seed: at least 0.
        version: of the renderer.
    """

    persons: int = 300
    images_per_person: int = 10
    cameras: int = 6
    size: tuple[int, int] = (128, 64)
    seed: int = 0
    version: int = VERSION

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be rendered."""
        for name, least in (("images_per_person", 1), ("cameras", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise DatasetError(f"synthetic: {name} must be at least {least}, not {getattr(self, name)}")
        if self.size[0] < 32 or not 16 <= self.size[1] <= self.size[0]:
            shown = f"{self.size[0]} x {self.size[1]}"
            raise DatasetError(
                f"synthetic: size {shown} (height x width) must be at least 32 x 16 and no wider than high"
            )


def load(config: DataConfig) -> PersonDataset:
    """Render the dataset at `config.root` unless it is there, and read it.

    `config.options` may set `persons`, `images_per_person`, `cameras`, `seed`, `height`, `width` and `workers`.

    Raises:
        DatasetError: an unknown option, or the folder holds something else.
    """
    options = dict(config.options)
    size = (options.pop("height", Parameters.size[0]), options.pop("width", Parameters.size[1]))
    known = ("persons", "images_per_person", "cameras", "seed", "workers")
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise DatasetError(f"data.options: {unknown[0]!r} is not one of {', '.join((*known, 'height', 'width'))}")
    generate(Path(config.root), size=size, **options)  # type: ignore[arg-type]
    return folder.load(config)


def generate(
    root: Path,
    persons: int = Parameters.persons,
    images_per_person: int = Parameters.images_per_person,
    cameras: int = Parameters.cameras,
    size: tuple[int, int] = Parameters.size,
    seed: int = Parameters.seed,
    workers: int = 2,
    progress: bool = True,
) -> None:
    """Render a dataset into `root`: `images/`, `labels.csv`, `schema.json`; the number of `workers` changes no byte.

    A folder that holds these parameters' dataset is kept as it is. A new one appears complete or not at all.

    Raises:
        DatasetError: a number is out of range, or `root` exists and holds anything else.
    """
    parameters = Parameters(persons, images_per_person, cameras, (size[0], size[1]), seed)
    if _is_rendered(root, parameters):
        return
    try:
        attributes, splits = draw_population(persons, seed)
    except ValueError as error:
        raise DatasetError(f"synthetic: {error}") from error
    with _new_folder(root, parameters) as building:
        (building / "images").mkdir()
        chunks = [range(start, min(start + PERSONS_A_TASK, persons)) for start in range(0, persons, PERSONS_A_TASK)]
        task = partial(_render_persons, building / "images", parameters, attributes)
        with tqdm(
            total=persons * images_per_person, unit="image", disable=not progress, desc=f"rendering {root}"
        ) as bar:
            for written in _map(task, chunks, workers):
                bar.update(written)
        _write_labels(building / "labels.csv", parameters, attributes, splits)
        (building / "schema.json").write_text(SCHEMA.to_json(), encoding="utf-8")
        (building / PARAMETERS_FILE).write_text(json.dumps(asdict(parameters), indent=2) + "\n", encoding="utf-8")


def render_person(
    attributes: np.ndarray,
    seed: int,
    person: int = 0,
    image: int = 0,
    camera: int = 1,
    size: tuple[int, int] = Parameters.size,
) -> np.ndarray:
    """Render one crop; a pure function of its arguments.

    Args:
        attributes: a complete row of `SCHEMA`, uint8 [N] of 0 and 1.
        seed: of the dataset.
        person: selects build, skin and shades.
        image: selects pose, viewpoint and everything else that varies.
        camera: from 1; selects scene and recording quality.
        size: height and width in pixels.

    Returns:
        RGB, uint8 [H, W, 3].
    """
    shown = Person(_appearance(attributes), Build.draw(np.random.default_rng([seed, 2, person])))
    rng = np.random.default_rng([seed, 3, person, image])
    passer = Person(_appearance(draw_category(rng)), Build.draw(rng))
    # The passer used up a varying count of numbers; the crop itself starts afresh.
    return render(shown, passer, camera_of(seed, camera), np.random.default_rng([seed, 4, person, image]), size)


def _appearance(attributes: np.ndarray) -> Appearance:
    values = SCHEMA.decode(attributes)
    bag = values.pop("bag")
    return Appearance(**{name: value[0] for name, value in values.items()}, bag=bag)


def _is_rendered(root: Path, parameters: Parameters) -> bool:
    """Whether `root` holds the dataset; DatasetError when it holds another."""
    if not root.exists():
        return False
    record = root / PARAMETERS_FILE
    if not record.is_file():
        raise DatasetError(f"{root} exists and is no synthetic dataset (no {PARAMETERS_FILE}); choose another root")
    found, wanted = json.loads(record.read_text(encoding="utf-8")), json.loads(json.dumps(asdict(parameters)))
    differing = [f"{name} {found.get(name)}, not {wanted[name]}" for name in wanted if found.get(name) != wanted[name]]
    if differing:
        raise DatasetError(
            f"{record} says {'; '.join(differing)}: delete {root} to render it anew, or choose another root"
        )
    return True


@contextmanager
def _new_folder(root: Path, parameters: Parameters) -> Iterator[Path]:
    """A folder beside `root` that takes its place once complete, and goes away on failure."""
    building = root.absolute().with_name(f".{root.name}.{os.getpid()}")
    building.mkdir(parents=True)
    try:
        yield building
        try:
            building.rename(root)
        except OSError:
            # Another process may have rendered the same dataset meanwhile: keep its folder.
            if not _is_rendered(root, parameters):
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _map(task: partial, chunks: list[range], workers: int) -> Iterable[int]:
    if workers <= 1:
        yield from map(task, chunks)
        return
    # A fresh interpreter each: forking a process that already runs threads (torch, gRPC) can deadlock.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(task, chunks)


def _render_persons(images: Path, parameters: Parameters, attributes: np.ndarray, persons: range) -> int:
    """Render and write every image of `persons`; returns how many."""
    written = 0
    for person in persons:
        for image, camera in enumerate(_cameras_of(person, parameters)):
            pixels = render_person(attributes[person], parameters.seed, person, image, camera, parameters.size)
            file = images / _image_name(person, image, camera)
            Image.fromarray(pixels).save(file, quality=camera_of(parameters.seed, camera).quality)
            written += 1
    return written


def _cameras_of(person: int, parameters: Parameters) -> list[int]:
    """The camera of each image of `person`: all cameras in the person's own order, again and again."""
    order = np.random.default_rng([parameters.seed, 5, person]).permutation(parameters.cameras) + 1
    return [int(order[image % parameters.cameras]) for image in range(parameters.images_per_person)]


def _image_name(person: int, image: int, camera: int) -> str:
    return f"{person:05d}_c{camera:02d}_{image:03d}.jpg"


def _write_labels(table: Path, parameters: Parameters, attributes: np.ndarray, splits: np.ndarray) -> None:
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "person", "camera", "time", "split", *SCHEMA.slices])
        for person, (row, split) in enumerate(zip(attributes, splits, strict=True)):
            cells = [SEPARATOR.join(values) for values in SCHEMA.decode(row).values()]
            start = FIRST_MORNING + timedelta(
                seconds=int(np.random.default_rng([parameters.seed, 6, person]).integers(36000))
            )
            for image, camera in enumerate(_cameras_of(person, parameters)):
                # A person passes one camera after the other, two and a half minutes apart, one image a second.
                visit, frame = image % parameters.cameras, image // parameters.cameras
                time = start + timedelta(seconds=150 * visit + frame)
                name = f"images/{_image_name(person, image, camera)}"
                writer.writerow([name, person, camera, time.isoformat(), split, *cells])
