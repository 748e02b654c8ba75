"""Is a dataset what was published? Counts, label problems, missing files, unreadable images and digests."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from descry.trainer.datasets import PUBLISHED, DatasetError, PersonDataset
from descry.trainer.datasets.statistics import figures
from descry.trainer.schema import UNKNOWN
from descry.trainer.transforms import read_image

SHOWN = 10
COMPARED_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
        dataset: what was read.
        found: figures by name, and `SPLIT digest` for each split.
        published: those of the papers, by the same names; empty where none are known.
        unreadable: an error for each image that does not decode.
        differing: figures that are not as published.
    """

    dataset: PersonDataset
    found: dict[str, int | str]
    published: dict[str, int | str]
    unreadable: list[str]
    differing: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Compare."""
        differing = [name for name, value in self.published.items() if self.found.get(name) != value]
        object.__setattr__(self, "differing", differing)

    @property
    def passed(self) -> bool:
        """Whether nothing is missing, unreadable or other than published."""
        return not (self.dataset.missing or self.unreadable or self.differing)


def check(dataset: PersonDataset, decode: bool = True) -> Report:
    """Count everything and, with `decode`, decode every image."""
    digests = {f"{split} digest": digest for split, digest in dataset.digests().items()}
    published = PUBLISHED.get(dataset.name, {}).get((dataset.protocol, dataset.schema.name), {})
    unreadable = decode_all(dataset) if decode else []
    return Report(dataset, {**figures(dataset), **digests}, dict(published), unreadable)


def decode_all(dataset: PersonDataset) -> list[str]:
    """Decode every image; returns an error for each that cannot be."""

    def attempt(image: Any) -> str:
        try:
            read_image(image)
        except DatasetError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as pool:
        errors = list(tqdm(pool.map(attempt, dataset.images), total=len(dataset), desc="decoding", unit="image"))
    return [error for error in errors if error]


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain values, with every missing file and problem."""
    dataset = report.dataset
    return {
        "name": dataset.name,
        "schema": dataset.schema.name,
        "protocol": dataset.protocol,
        "passed": report.passed,
        "found": report.found,
        "published": report.published,
        "images_per_category": {split: _category_sizes(dataset.subset(split)).tolist() for split in _splits(dataset)},
        "attributes": attribute_shares(dataset),
        "notes": dataset.notes,
        "problems": dataset.problems,
        "missing": dataset.missing,
        "unreadable": report.unreadable,
    }


def _splits(dataset: PersonDataset) -> list[str]:
    return [split for split in COMPARED_SPLITS if (dataset.splits == split).any()]


def _category_sizes(part: PersonDataset) -> np.ndarray:
    """Images of each category, largest first."""
    complete = part.attributes[(part.attributes != UNKNOWN).all(axis=1)]
    return np.sort(np.unique(complete, axis=0, return_counts=True)[1])[::-1]


def attribute_shares(dataset: PersonDataset) -> dict[str, dict[str, tuple[float, int]]]:
    """Per element and split: the share of ones among known labels in percent, and the number of known labels."""
    table: dict[str, dict[str, tuple[float, int]]] = {element: {} for element in dataset.schema.elements}
    for split in _splits(dataset):
        labels = dataset.subset(split).attributes
        known = (labels != UNKNOWN).sum(axis=0)
        ones = (labels == 1).sum(axis=0)
        for element, count, total in zip(dataset.schema.elements, ones, known, strict=True):
            table[element][split] = (round(100 * float(count) / total, 1) if total else float("nan"), int(total))
    return table


def to_text(report: Report) -> str:
    """The report as text: what was found beside what was published."""
    dataset = report.dataset
    protocol = f", protocol {dataset.protocol}" if dataset.protocol else ""
    schema = f"schema {dataset.schema.name}: {dataset.schema.size} elements in {len(dataset.schema.groups)} groups"
    lines = [f"{dataset.name}: {len(dataset)} images, {schema}{protocol}"]
    lines += [f"note: {note}" for note in dataset.notes]
    lines += ["", *_figure_lines(report), "", *_category_lines(dataset), "", *_attribute_lines(dataset)]
    kinds = Counter(problem.partition(": ")[2] for problem in dataset.problems)
    lines += _listed("label problems, by kind", [f"{count} x {kind}" for kind, count in kinds.most_common()])
    lines += _listed("label problems, by image", dataset.problems)
    lines += _listed("images that do not decode", report.unreadable)
    lines += _listed("missing", dataset.missing)
    lines += _listed("not as published", [f"{name}: {report.found.get(name)}" for name in report.differing])
    return "\n".join([*lines, "", "passed" if report.passed else "NOT COMPLETE, or not as published: see above"])


def _figure_lines(report: Report) -> list[str]:
    lines = [f"{'figure':<40}{'found':>10}{'published':>12}"]
    for name, value in report.found.items():
        if isinstance(value, int):
            lines.append(f"{name:<40}{value:>10}{report.published.get(name, '-'):>12}")
    for name, value in report.found.items():
        if isinstance(value, str):
            same = {True: " (as published)", False: " (NOT as published)"}[report.published.get(name, value) == value]
            lines.append(f"{name:<20}sha256 {value}{same if name in report.published else ''}")
    return lines


def _category_lines(dataset: PersonDataset) -> list[str]:
    lines = [f"{'images per category':<24}{'categories':>12}{'largest':>10}{'median':>10}{'of one image':>15}"]
    for split in _splits(dataset):
        sizes = _category_sizes(dataset.subset(split))
        if len(sizes):
            lines.append(f"{split:<24}{len(sizes):>12}{sizes[0]:>10}{np.median(sizes):>10.0f}{(sizes == 1).sum():>15}")
    return lines


def _attribute_lines(dataset: PersonDataset) -> list[str]:
    splits = _splits(dataset)
    parts = {element: group.part for group in dataset.schema.groups for element in group.elements}
    lines = [f"{'share of ones, %':<36}{'part':<10}" + "".join(f"{split:>8}{'known':>8}" for split in splits)]
    for element, shares in attribute_shares(dataset).items():
        cells = "".join(f"{shares[split][0]:>8.1f}{shares[split][1]:>8}" for split in splits)
        lines.append(f"{element:<36}{parts[element]:<10}{cells}")
    return lines


def _listed(title: str, entries: Any) -> list[str]:
    if not entries:
        return []
    more = [f"  ... and {len(entries) - SHOWN} more: --json lists all"] if len(entries) > SHOWN else []
    return ["", f"{title}: {len(entries)}", *(f"  {entry}" for entry in entries[:SHOWN]), *more]
