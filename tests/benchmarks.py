"""Five-image copies of the benchmarks' layouts, with synthetic people: for reading right and for reading wrong."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from descry.trainer.datasets import DataConfig, dukemtmc, market1501
from descry.trainer.datasets.pedestrian_population import draw_category
from descry.trainer.datasets.peta_attributes import SCHEMAS
from descry.trainer.datasets.synthetic import render_person

ANNOTATIONS = Path(__file__).parents[2] / "shared" / "data" / "annotations"
DATA = Path(__file__).parents[1] / "data"
MARKET_FILES = (
    "bounding_box_train/0002_c1s1_000451_03.jpg",
    "bounding_box_train/0007_c2s1_000100_01.jpg",
    "bounding_box_test/0001_c1s1_001051_00.jpg",
    "bounding_box_test/0001_c2s1_001051_00.jpg",
    "bounding_box_test/0000_c1s1_000001_00.jpg",
    "bounding_box_test/-1_c1s1_000401_03.jpg",
    "query/0001_c1s1_001052_00.jpg",
)


def cells(values: list[str]) -> np.ndarray:
    """A cell array of strings."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def draw_person(path: Path, number: int) -> None:
    """Write one synthetic crop."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = render_person(draw_category(np.random.default_rng(number)), seed=number, size=(64, 32))
    Image.fromarray(pixels).save(path)


def identity_fields(benchmark: Any, ids: list[str]) -> dict[str, Any]:
    """An annotation of `ids` with the first legal value everywhere."""
    values = {name: np.full(len(ids), legal[-2], np.uint8) for name, legal in benchmark.legal.items()}
    return {**values, "image_index": cells(ids)}


def make_market(root: Path, change: Any = None, benchmark: Any = market1501.BENCHMARK) -> DataConfig:
    """Market-1501's layout; `change` may alter {split: fields} before it is saved."""
    for number, name in enumerate(MARKET_FILES):
        draw_person(root / name, number)
    (root / "bounding_box_train" / "Thumbs.db").write_bytes(b"")
    splits = {"train": identity_fields(benchmark, ["0002", "0007"]), "test": identity_fields(benchmark, ["0001"])}
    if change:
        change(splits)
    savemat(root / f"{benchmark.annotation}.mat", {benchmark.annotation: splits})
    return DataConfig(name=benchmark.name, root=str(root))


def make_duke(root: Path, change: Any = None) -> DataConfig:
    """The same layout with DukeMTMC's annotation."""
    return make_market(root, change, dukemtmc.BENCHMARK)


def make_peta(root: Path, change: Any = None) -> DataConfig:
    """Five images of PETA under the protocol `random1`; `change` may alter the struct before it is saved."""
    attributes = list(SCHEMAS["peta"][1])
    data = np.zeros((5, 4 + len(attributes)), np.uint16)
    data[:, 0], data[:, 1] = range(1, 6), (7, 7, 8, 9, 9)
    for _, where in SCHEMAS["peta"][0]:
        data[:, 4 + where.start] = 1
    parts = {"train": np.array([[1], [3], [5]]), "val": np.array([[2]]), "test": np.array([[4]])}
    partitions = np.empty((5, 1), object)
    for number in range(5):
        partitions[number, 0] = dict(parts)
    struct = {
        "data": data,
        "attribute": cells(attributes).reshape(-1, 1),
        "selected_attribute": np.arange(5, 40, dtype=np.uint8),
        "partion_attribute": partitions,
    }
    for number in range(1, 6):
        draw_person(root / "images" / f"{number:05d}.png", number)
    if change:
        change(struct)
    savemat(root / "PETA.mat", {"peta": struct})
    return DataConfig(name="peta", root=str(root), protocol="random1")


def make_pa100k(root: Path, change: Any = None) -> DataConfig:
    """Five images of PA-100K; `change` may alter the variables before they are saved."""
    generator = np.random.default_rng(0)
    content: dict[str, Any] = {"attributes": np.zeros((26, 1), object)}
    for split, numbers in (("train", (1, 2, 3)), ("val", (4,)), ("test", (5,))):
        names = [f"{number:06d}.jpg" for number in numbers]
        content[f"{split}_images_name"] = cells(names).reshape(-1, 1)
        content[f"{split}_label"] = generator.integers(0, 2, (len(names), 26)).astype(np.uint8)
        for number, name in zip(numbers, names, strict=True):
            draw_person(root / name, number)
    if change:
        change(content)
    savemat(root / "annotation.mat", content)
    return DataConfig(name="pa100k", root=str(root))
