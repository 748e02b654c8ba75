"""UPAR's challenge files: five images made here, read right, and every damage named by file and row."""

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from descry.trainer.datasets import upar
from descry.trainer.datasets.persons import DataConfig, DatasetError
from descry.trainer.datasets.statistics import figures

YOUNG_WOMAN = ("Age-Young", "Gender-Female", "Hair-Length-Long", "UpperBody-Color-Red", "LowerBody-Type-Skirt&Dress")
OLD_MAN = ("Age-Old", "Hair-Length-Short", "UpperBody-Color-Blue", "UpperBody-Color-White", "Accessory-Hat")
ODD_MAN = ("Age-Young", "Age-Old", "Hair-Length-Short", "Hair-Length-Bald", "LowerBody-Type-Trousers&Shorts")
PEOPLE = {
    "train": {
        "Market1501/bounding_box_train/0002_c1s1_000451_03.jpg": YOUNG_WOMAN,
        "PA100k/release_data/release_data/000001.jpg": OLD_MAN,
        "PETA/images/00001.png": YOUNG_WOMAN,
    },
    "val": {
        "Market1501/query/0001_c1s1_001051_00.jpg": ODD_MAN,
        "PETA/images/00002.png": OLD_MAN,
    },
}


def write_rows(path: Path, rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def bits(names: tuple[str, ...]) -> list[str]:
    return [str(int(column in names)) for column in upar.COLUMNS]


def make_upar(root: Path) -> DataConfig:
    """The release in small, with a header of each published form."""
    for split, first in (("train", "# image"), ("val", None)):
        people = PEOPLE[split]
        header = [first, *upar.COLUMNS] if first else [f"# {upar.COLUMNS[0]}", *upar.COLUMNS[1:]]
        write_rows(root / f"annotations/{split}.csv", [header, *([path, *bits(people[path])] for path in people)])
        queries = sorted(set(map(tuple, map(bits, people.values()))))
        task = root / "annotations/task2" / split
        write_rows(task / "queries.csv", [[f"# {upar.COLUMNS[0]}", *upar.COLUMNS[1:]], *map(list, queries)])
        write_rows(task / "ids.csv", [[path, str(queries.index(tuple(bits(people[path]))))] for path in people])
        for path in people:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 16)).save(root / path)
    return DataConfig(name="upar", root=str(root))


def test_the_vector_is_the_published_one():
    assert len(upar.COLUMNS) == upar.SCHEMA.size == 40
    assert upar.COLUMNS[3] == "Gender-Female" and upar.SCHEMA.elements[3] == "gender=female"
    assert upar.COLUMNS[19] == "UpperBody-Color-Other" and upar.SCHEMA.elements[19] == "upper_color=other"
    assert upar.COLUMNS[33:35] == ("LowerBody-Type-Trousers&Shorts", "LowerBody-Type-Skirt&Dress")
    assert upar.COLUMNS[-1] == "Accessory-Hat" and upar.SCHEMA.elements[-1] == "hat=yes"


def test_the_release_is_read(tmp_path):
    dataset = upar.load(make_upar(tmp_path))
    assert dataset.splits.tolist() == ["train"] * 3 + ["val"] * 2
    assert [str(image.relative_to(tmp_path)) for image in dataset.images] == [*PEOPLE["train"], *PEOPLE["val"]]
    assert dataset.attributes[1].tolist() == [int(bit) for bit in bits(OLD_MAN)]
    labels = dataset.schema.decode(dataset.attributes[0])
    assert labels["gender"] == ("female",) and labels["age"] == ("young",) and labels["upper_color"] == ("red",)
    assert labels["hat"] == ("no",) and labels["lower_type"] == ("skirt_or_dress",)
    assert (dataset.notes, dataset.missing) == ((), ())
    found = figures(dataset)
    assert {name: found[name] for name in upar.PUBLISHED[dataset.protocol, dataset.schema.name]} == {
        "train images": 3,
        "train categories": 2,
        "val images": 2,
        "val categories": 2,
    }


def test_contradictions_are_listed_with_file_and_row(tmp_path):
    problems = upar.load(make_upar(tmp_path)).problems
    place = f"{tmp_path / 'annotations/val.csv'}, row 2, Market1501/query/0001_c1s1_001051_00.jpg"
    assert f"{place}: age is young+old, one value is meant" in problems
    assert f"{place}: hair_length is short+bald, one value is meant" in problems
    assert not any("upper_color" in problem for problem in problems)


def test_columns_are_found_by_name(tmp_path):
    config = make_upar(tmp_path)
    expected = upar.load(config).attributes
    path = tmp_path / "annotations/train.csv"
    with path.open(newline="") as file:
        write_rows(path, [[row[0], *reversed(row[1:])] for row in csv.reader(file)])
    np.testing.assert_array_equal(upar.load(config).attributes, expected)


def test_a_copy_with_the_labels_of_task_1_alone_is_read(tmp_path):
    config = make_upar(tmp_path)
    for split in upar.SPLITS:
        (tmp_path / "annotations/task1" / split).mkdir(parents=True)
        (tmp_path / f"annotations/{split}.csv").rename(tmp_path / f"annotations/task1/{split}/gt.csv")
        for name in ("queries.csv", "ids.csv"):
            (tmp_path / "annotations/task2" / split / name).unlink()
    assert len(upar.load(config)) == 5
    (tmp_path / "annotations").rename(tmp_path / "elsewhere")
    assert len(upar.load(DataConfig(root=str(tmp_path), labels=str(tmp_path / "elsewhere")))) == 5


def test_missing_images_are_listed_and_said(tmp_path):
    config = make_upar(tmp_path)
    (tmp_path / "PETA/images/00001.png").unlink()
    dataset = upar.load(config)
    assert dataset.missing == (str(tmp_path / "PETA/images/00001.png"),)
    assert len(dataset) == 4 and dataset.notes[0].startswith("partial: 4 of 5 images")
    assert dataset.attributes[2].tolist() == [int(bit) for bit in bits(ODD_MAN)]
    for image in dataset.images:
        image.unlink()
    with pytest.raises(DatasetError, match="no image of .*annotations is here; .*0002_c1s1_000451_03.jpg"):
        upar.load(config)


TRAIN, TASK = "train.csv", "task2/train/"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (TRAIN, "000001.jpg,0", "000001.jpg,2", "train.csv, row 3: Age-Young is '2', not 0 or 1"),
        (TRAIN, "000001.jpg,0", "000001.jpg", "train.csv, row 3: 40 cells, 41 are wanted"),
        (TRAIN, "Age-Old", "Age-Ancient", "train.csv, row 1: .*'Age-Ancient' is missing, repeated or not"),
        (TRAIN, "Age-Old", "Age-Adult", "train.csv, row 1: .*'Age-Old' is missing, repeated or not"),
        (
            TRAIN,
            "PETA/images/00001",
            "PETA/images/00002",
            "val.csv, row 3, PETA/images/00002.png: the image is listed already, in .*train.csv, row 4",
        ),
        (TRAIN, "00001.png,1,0", "00001.png,0,1", "row 4, PETA/images/00001.png: its attributes are no query of"),
        (TRAIN, "# image", "\udcff", "train.csv is not a CSV file"),
        (TASK + "queries.csv", "\r\n1,0,0", "\r\n1,0,5", "queries.csv, row 3: Age-Old is '5'"),
        (TASK + "queries.csv", "\r\n1,0,0", "\r\n1,1,0", "row 2, Market1501/.*: its attributes are no query"),
        (TASK + "ids.csv", "000001.jpg,0", "000001.jpg,1", "ids.csv, row 2, PA100k/.*: query '1', but .* query 0"),
        (TASK + "ids.csv", "PETA/images/00001.png,1\r\n", "", "ids.csv: PETA/images/00001.png is missing"),
        (TASK + "ids.csv", "00001.png,1", "00002.png,1", "ids.csv, row 3: .*is not another image of the split"),
        (TASK + "ids.csv", "00001.png,1", "00001.png", "ids.csv, row 3: .*is not another image of the split"),
    ],
)
def test_damage_is_named_by_file_and_row(tmp_path, file, old, new, message):
    config = make_upar(tmp_path)
    path = tmp_path / "annotations" / file
    content = path.read_bytes().decode()
    assert old in content
    path.write_bytes(content.replace(old, new, 1).encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError, match=message):
        upar.load(config)


def test_a_query_of_no_image_and_a_repeated_query_are_named(tmp_path):
    config = make_upar(tmp_path)
    path = tmp_path / "annotations/task2/val/queries.csv"
    content = path.read_text()
    for row, message in ((bits(("Age-Adult",)), "row 4: no image has"), (bits(ODD_MAN), "row 4: the same .* as row 3")):
        path.write_text(content + ",".join(row) + "\n")
        with pytest.raises(DatasetError, match=f"queries.csv, {message}"):
            upar.load(config)


def test_a_pickle_is_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "dataset_all.pkl").write_bytes(pickle.dumps(Trap()))
    for labels in ("", str(tmp_path / "dataset_all.pkl")):
        with pytest.raises(
            DatasetError, match=r"dataset_all.pkl is a pickle.*never loaded; use the CSV files.*train.csv"
        ):
            upar.load(DataConfig(root=str(tmp_path), labels=labels))
    assert not (tmp_path / "sprung").exists()


def test_a_missing_file_and_an_unknown_protocol_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"annotations/train.csv or .*gt.csv.* does not exist; data.root is"):
        upar.load(DataConfig(root=str(tmp_path)))
    with pytest.raises(DatasetError, match="data.protocol: 'wacv' is not one of challenge2027"):
        upar.load(DataConfig(root=str(tmp_path), protocol="wacv"))
    with pytest.raises(DatasetError, match="data.schema: 'peta' is not one of upar"):
        upar.load(DataConfig(root=str(tmp_path), schema="peta"))
