"""Re-ID benchmarks with attributes of each person: the folders and the annotation that Market-1501 and DukeMTMC share.

Every attribute is a field of the annotation with one number a person. An element of the attribute vector is 1 where a
field has one value: `("up", 2)` is the element "the field `up` is 2".
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from descry.trainer.datasets.matfile import read_mat, read_struct, texts
from descry.trainer.datasets.persons import (
    DISTRACTOR,
    DataConfig,
    DatasetError,
    PersonDataset,
    choose,
    find_annotation,
)
from descry.trainer.schema import UNKNOWN, AttributeGroup, AttributeSchema

FOLDERS = ("bounding_box_train", "bounding_box_test", "query")
FILE_NAME = re.compile(r"(?P<person>-?\d+)_c(?P<camera>\d+).*\.jpg", re.IGNORECASE)
JUNK, DISTRACTOR_PERSON = -1, 0

Element = tuple[str, int]
# Fields by name, one number a person.
Fields = dict[str, np.ndarray]


@dataclass(frozen=True)
class AttributeSet:
    """A schema and where its elements come from.

    Attributes:
        schema: of the vector.
        elements: one a vector element; None = "no other element of its group is set".
    """

    schema: AttributeSchema
    elements: tuple[Element | None, ...]

    @classmethod
    def of(cls, name: str, *groups: tuple[AttributeGroup, Sequence[Element | None]]) -> "AttributeSet":
        """From groups with their elements."""
        schema = AttributeSchema(name, tuple(group for group, _ in groups))
        return cls(schema, tuple(element for _, elements in groups for element in elements))

    def encode(self, fields: Fields) -> np.ndarray:
        """Attribute vectors uint8 [P, N] of P annotated persons."""
        people = len(next(iter(fields.values())))
        vectors = np.zeros((people, self.schema.size), np.uint8)
        for position, element in enumerate(self.elements):
            if element is not None:
                field, value = element
                vectors[:, position] = fields[field] == value
        for position, element in enumerate(self.elements):
            if element is None:
                group = next(where for _, where in self.schema if where.start <= position < where.stop)
                vectors[:, position] = ~vectors[:, group].any(axis=1)
        return vectors


@dataclass(frozen=True)
class Benchmark:
    """What distinguishes one benchmark from another.

    Attributes:
        name: of the dataset.
        annotation: file and variable name of its attributes, without `.mat`.
        attribute_sets: by schema name; the first is the default.
        legal: the values that each field may have.
        images: published number of images in each of `FOLDERS`.
        correct: applied to the annotation of each split; returns it corrected, with a note for each correction.
        notes: what every user of this dataset must know.
    """

    name: str
    annotation: str
    attribute_sets: dict[str, AttributeSet]
    legal: dict[str, tuple[int, ...]]
    images: dict[str, int]
    correct: Callable[[list[str], Fields], tuple[Fields, list[str]]] = lambda ids, fields: (fields, [])
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Crop:
    """One file of a benchmark folder."""

    path: Path
    person: int
    camera: int


def load_benchmark(benchmark: Benchmark, config: DataConfig) -> PersonDataset:
    """Read a benchmark: `train`, `test` (gallery and query images of annotated persons) and `distractor`.

    Junk images (person -1) take part in no measure and are left out.

    Raises:
        DatasetError: a missing folder or file (all are named), a damaged annotation, or a person without annotation.
    """
    root = Path(config.root)
    attributes = choose(benchmark.attribute_sets, config.schema, "data.schema")
    annotation = find_annotation(root, benchmark.annotation, config.labels)
    absent = [str(path) for path in (*(root / name for name in FOLDERS), annotation) if not path.exists()]
    if absent:
        raise DatasetError(f"{benchmark.name} needs {', '.join(absent)}; see docs/datasets.md for the layout")
    crops = {name: read_folder(root / name) for name in FOLDERS}
    labels, notes = {}, list(benchmark.notes)
    for split in ("train", "test"):
        ids, fields = read_annotation(annotation, benchmark, split)
        fields, corrections = benchmark.correct(ids, fields)
        labels[split] = dict(zip(map(int, ids), attributes.encode(fields), strict=True))
        notes += corrections
    missing = _missing(root, benchmark, crops, labels)
    return _assemble(benchmark, attributes.schema, crops, labels, notes, missing, annotation)


def read_folder(folder: Path) -> list[Crop]:
    """The crops of a folder by file name, `PERSON_cCAMERA….jpg`; other kinds of files are passed over.

    Raises:
        DatasetError: a .jpg whose name says neither person nor camera.
    """
    crops = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != ".jpg":
            continue
        match = FILE_NAME.fullmatch(path.name)
        if not match:
            raise DatasetError(f"{path}: the name does not begin with PERSON_cCAMERA, e.g. 0002_c1s1_000451_03.jpg")
        crops.append(Crop(path, int(match["person"]), int(match["camera"])))
    return crops


def read_annotation(path: Path, benchmark: Benchmark, split: str) -> tuple[list[str], Fields]:
    """Person ids and fields of one split, by field name: the order of the fields differs between the splits.

    Raises:
        DatasetError: a field is missing or has another length than the ids, an id is repeated, or a value is illegal.
    """
    content = read_mat(path, [benchmark.annotation])
    splits = read_struct(path, benchmark.annotation, content[benchmark.annotation], ["train", "test"])
    fields = read_struct(path, split, splits[split], [*benchmark.legal, "image_index"])
    ids = texts(fields["image_index"])
    repeated = sorted({person for person in ids if ids.count(person) > 1})
    if repeated:
        raise DatasetError(f"{path}: {split}.image_index lists person {repeated[0]} more than once")
    for name, legal in benchmark.legal.items():
        if len(fields[name]) != len(ids):
            raise DatasetError(f"{path}: {split}.{name} has {len(fields[name])} values for {len(ids)} persons")
        wrong = np.flatnonzero(~np.isin(fields[name], legal))
        if len(wrong):
            row = wrong[0]
            raise DatasetError(
                f"{path}: {split}.{name}, row {row + 1}, person {ids[row]}: {fields[name][row]} is not one of "
                f"{', '.join(map(str, legal))}"
            )
    return ids, {name: fields[name] for name in benchmark.legal}


def _missing(root: Path, benchmark: Benchmark, crops: dict[str, list[Crop]], labels: dict[str, dict]) -> list[str]:
    """Published images that are not there, as exactly as their names can be known."""
    missing = [
        f"{root / name}: {len(crops[name])} of {published} images"
        for name, published in benchmark.images.items()
        if len(crops[name]) != published
    ]
    held = {"train": crops["bounding_box_train"], "test": crops["bounding_box_test"] + crops["query"]}
    for split, found in held.items():
        absent = sorted(set(labels[split]) - {crop.person for crop in found})
        missing += [str(root / f"bounding_box_{split}" / f"{person:04d}_*.jpg") for person in absent]
    return missing


def _assemble(
    benchmark: Benchmark,
    schema: AttributeSchema,
    crops: dict[str, list[Crop]],
    labels: dict[str, dict],
    notes: list[str],
    missing: list[str],
    annotation: Path,
) -> PersonDataset:
    rows: list[tuple[Crop, str, np.ndarray]] = []
    nobody = np.full(schema.size, UNKNOWN, np.uint8)
    for folder, found in crops.items():
        split = "train" if folder == "bounding_box_train" else "test"
        for crop in found:
            if crop.person == DISTRACTOR_PERSON:
                rows.append((crop, DISTRACTOR, nobody))
            elif crop.person != JUNK:
                if crop.person not in labels[split]:
                    raise DatasetError(f"{crop.path}: person {crop.person} is not in {annotation} ({split})")
                rows.append((crop, split, labels[split][crop.person]))
    if not rows:
        raise DatasetError(f"{benchmark.name}: no image in {', '.join(FOLDERS)}")
    junk = sum(crop.person == JUNK for found in crops.values() for crop in found)
    if junk:
        notes = [*notes, f"{junk} junk images (person -1) are left out: the benchmark ignores them"]
    splits = np.array([split for _, split, _ in rows])
    persons = np.array([crop.person for crop, _, _ in rows], np.int64)
    return PersonDataset(
        name=benchmark.name,
        schema=schema,
        images=tuple(crop.path for crop, _, _ in rows),
        attributes=np.stack([vector for _, _, vector in rows]),
        persons=np.where(splits == DISTRACTOR, -1, persons),
        cameras=np.array([crop.camera for crop, _, _ in rows], np.int64),
        splits=splits,
        queries=np.array([crop.path.parent.name == "query" for crop, _, _ in rows]),
        notes=tuple(notes),
        missing=tuple(missing),
    )
