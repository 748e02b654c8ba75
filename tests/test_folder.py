"""A folder of one's own: CSV and Parquet read alike, wrong cells named, a schema guessed and written."""

import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from descry.trainer.datasets import DataConfig, DatasetError, PersonDataset, load_dataset
from descry.trainer.datasets.infer import guess_part, write_schema
from descry.trainer.schema import UNKNOWN, AttributeSchema

TABLE = """image,person,camera,split,gender,top,bag
a.jpg,1,1,train,female,red,backpack+handbag
b.jpg,1,2,train,,blue,none
c.jpg,2,1,test,male,red,backpack
d.jpg,,,val,female,,handbag
e.jpg,3,3,test,female,none,
"""
# The same, as a program would write it.
TYPED: dict[str, list[Any]] = {
    "image": ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"],
    "person": [1.0, 1.0, 2.0, math.nan, 3.0],
    "camera": [1, 2, 1, None, 3],
    "split": ["train", "train", "test", "val", "test"],
    "gender": ["female", None, "male", "female", "female"],
    "top": ["red", "blue", "red", None, "none"],
    "bag": [["backpack", "handbag"], [], ["backpack"], ["handbag"], None],
}


def make_images(root: Path) -> DataConfig:
    for index, name in enumerate("abcde"):
        Image.new("RGB", (8, 16), (40 * index, 0, 0)).save(root / f"{name}.jpg")
    return DataConfig(name="folder", root=str(root))


def make_folder(root: Path, table: str = TABLE) -> DataConfig:
    (root / "labels.csv").write_text(table)
    return make_images(root)


def make_parquet(root: Path, **changes: Any) -> DataConfig:
    columns = {name: cells for name, cells in {**TYPED, **changes}.items() if cells is not None}
    parquet.write_table(pyarrow.table(columns), root / "labels.parquet")
    return make_images(root)


def same(one: PersonDataset, other: PersonDataset) -> bool:
    arrays = ("attributes", "persons", "cameras", "splits")
    return one.schema == other.schema and all(np.array_equal(getattr(one, a), getattr(other, a)) for a in arrays)


def test_folder_reads_labels_and_keeps_unknown(tmp_path):
    persons = load_dataset(make_folder(tmp_path))
    assert [group.name for group in persons.schema.groups] == ["gender", "top", "bag"]
    assert [group.kind for group in persons.schema.groups] == ["choice", "choice", "multi"]
    assert persons.schema.decode(persons.attributes[0]) == {
        "gender": ("female",),
        "top": ("red",),
        "bag": ("backpack", "handbag"),
    }
    where = persons.schema.slices
    assert (persons.attributes[1, where["gender"]] == UNKNOWN).all()
    assert (persons.attributes[1, where["bag"]] == 0).all()
    assert (persons.attributes[4, where["top"]] == 0).all()
    assert persons.persons.tolist() == [1, 1, 2, -1, 3]
    assert persons.cameras.tolist() == [1, 2, 1, -1, 3]
    assert [path.name for path in persons.subset("test").images] == ["c.jpg", "e.jpg"]
    assert "guessed" in persons.notes[0]


def test_parquet_is_read_as_the_same_labels(tmp_path):
    expected = load_dataset(make_folder(tmp_path))
    (tmp_path / "labels.csv").unlink()
    assert same(load_dataset(make_parquet(tmp_path)), expected)


def test_typed_cells(tmp_path):
    times = [datetime(2024, 5, 1, 12, second) for second in range(4)] + [None]
    hats = [True, False, None, False, True]
    persons = load_dataset(make_parquet(tmp_path, time=times, hat=hats, floor=pyarrow.array([0.5, 1.0, 2.0, None, 1])))
    groups = {group.name: group for group in persons.schema.groups}
    assert (groups["hat"].kind, groups["hat"].values, groups["hat"].part) == ("binary", ("no", "yes"), "head")
    assert persons.attributes[:, persons.schema.slices["hat"]].ravel().tolist() == [1, 0, UNKNOWN, 0, 1]
    assert groups["floor"].values == ("0.5", "1", "2")
    with pytest.raises(DatasetError, match=r"labels.parquet, row 2: gender is a dict; text, numbers"):
        load_dataset(make_parquet(tmp_path, gender=[None, {"a": 1}, None, None, None]))


def test_a_column_of_no_and_yes_is_binary(tmp_path):
    config = make_folder(tmp_path, "image,hat\na.jpg,no\nb.jpg,yes\nc.jpg,\n")
    persons = load_dataset(config)
    assert persons.schema.groups[0].kind == "binary"
    assert persons.attributes.ravel().tolist() == [0, 1, UNKNOWN]
    assert set(persons.splits) == {"train"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("d.jpg,,,val", "f.jpg,,,val"), "row 5: .*f.jpg does not exist"),
        (("b.jpg", "a.jpg"), "row 3: a.jpg was listed in row 2 already"),
        (("b.jpg,1,2", "b.jpg,x,2"), "row 3: person 'x' is not a whole number"),
        (("b.jpg,1,2", f"b.jpg,{'9' * 30},2"), "row 3: person '9+' is not a whole number of at most 18 digits"),
        (("d.jpg,,,val", "d.jpg,,,validation"), "row 5: split 'validation' is not one of train, val, test"),
        (("e.jpg,3,3,test,female,none,", "\ne.jpg,3,3"), "row 7: 7 cells wanted"),
        (("image,", "file,"), "needs an `image` column"),
        (("camera", "person"), "column 'person' is there 2 times"),
        (("backpack+handbag", "backpack+"), r"row 2: bag 'backpack\+' has an empty value"),
        ((TABLE, ""), "needs an `image` column and at least one row"),
        (("female", "f\x00\udce9male"), "labels.csv is not a CSV file in UTF-8"),
    ],
)
def test_a_wrong_table_is_named_by_row(tmp_path, change, message):
    config = make_images(tmp_path)
    (tmp_path / "labels.csv").write_bytes(TABLE.replace(*change).encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError, match=message):
        load_dataset(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": [*"abcd", "e.jpg"]}, "labels.parquet, row 1: .*a does not exist"),
        ({"image": ["a.jpg", "a.jpg", "c.jpg", "d.jpg", "e.jpg"]}, "row 2: a.jpg was listed in row 1 already"),
        ({"person": [1, 1, -2, 2, 3]}, "row 3: person '-2' is not a whole number"),
        ({"split": ["train"] * 4 + ["dev"]}, "row 5: split 'dev' is not one of"),
        ({"image": None}, "needs an `image` column"),
    ],
)
def test_a_wrong_parquet_is_named_by_row(tmp_path, changes, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset(make_parquet(tmp_path, **changes))


def test_a_file_that_is_no_parquet_and_two_tables_are_named(tmp_path):
    config = make_folder(tmp_path)
    (tmp_path / "labels.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DatasetError, match=r"labels.csv and .*labels.parquet are both there: remove one"):
        load_dataset(config)
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(DatasetError, match="labels.parquet is not a readable Parquet file"):
        load_dataset(config)


@pytest.mark.parametrize("time", ["2024-05-01T12:00:00", "2024-05-01", "2024-05-01T12:00:00Z", ""])
def test_times_that_a_gallery_reads_are_read(tmp_path, time):
    assert len(load_dataset(make_folder(tmp_path, f"image,time,hat\na.jpg,{time},no\nb.jpg,,yes\n"))) == 2


def test_a_time_that_a_gallery_would_refuse_is_named(tmp_path):
    config = make_folder(tmp_path, "image,time,hat\na.jpg,,no\nb.jpg,5 pm,yes\n")
    with pytest.raises(DatasetError, match="row 3: time '5 pm' is not ISO 8601"):
        load_dataset(config)


def test_a_value_that_the_schema_lacks_is_named(tmp_path):
    config = make_folder(tmp_path)
    (tmp_path / "schema.json").write_text(load_dataset(config).schema.to_json())
    assert load_dataset(config).notes == ()
    (tmp_path / "labels.csv").write_text(TABLE.replace(",blue,", ",pink,"))
    with pytest.raises(DatasetError, match="row 3, b.jpg: top: 'pink' is not one of blue, red"):
        load_dataset(config)
    (tmp_path / "labels.csv").write_text(TABLE.replace(",top,", ",hat,"))
    with pytest.raises(DatasetError, match="column 'hat' is not in .*schema.json; valid: gender, top, bag"):
        load_dataset(config)


def test_a_missing_table_and_an_unknown_dataset_are_named(tmp_path):
    with pytest.raises(DatasetError, match="labels.csv does not exist, nor labels.parquet"):
        load_dataset(DataConfig(name="folder", root=str(tmp_path)))
    with pytest.raises(DatasetError, match="there.csv does not exist"):
        load_dataset(DataConfig(name="folder", root=str(tmp_path), labels=str(tmp_path / "there.csv")))
    with pytest.raises(DatasetError, match="'cuhk' is not one of folder, "):
        load_dataset(DataConfig(name="cuhk"))


def test_a_written_schema_is_what_was_guessed_and_is_never_overwritten(tmp_path):
    config = make_folder(tmp_path)
    guessed = load_dataset(config)
    path, table = write_schema(tmp_path)
    assert AttributeSchema.load(path) == guessed.schema
    lines = [line.split(maxsplit=3) for line in table.splitlines()]
    assert lines[0] == ["group", "kind", "part", "values (rows)"]
    assert lines[1][:3] == ["gender", "choice", "identity"] and lines[1][3] == "female 3, male 1, unknown 1"
    assert lines[2][:3] == ["top", "choice", "upper"] and lines[2][3] == "blue 1, red 2, none 1, unknown 1"
    assert lines[3][:3] == ["bag", "multi", "carrying"]
    edited = path.read_text().replace('"female"', '"woman"')
    path.write_text(edited)
    with pytest.raises(DatasetError, match="schema.json exists; --force replaces it"):
        write_schema(tmp_path)
    assert path.read_text() == edited
    write_schema(tmp_path, force=True)
    assert AttributeSchema.load(path) == guessed.schema
    assert {file.name for file in tmp_path.iterdir()} == {*(f"{name}.jpg" for name in "abcde"), "labels.csv", path.name}


def test_a_column_of_notes_is_no_attribute(tmp_path):
    rows = "".join(f"{number}.jpg,no,seen at gate {number}\n" for number in range(60))
    (tmp_path / "labels.csv").write_text(f"image,hat,note\n{rows}")
    with pytest.raises(DatasetError, match="column 'note' has 60 distinct values.*remove the column"):
        write_schema(tmp_path)
    assert not (tmp_path / "schema.json").exists()
    (tmp_path / "labels.csv").write_text("image,hat\na.jpg,\n")
    with pytest.raises(DatasetError, match="column 'hat' has no value in any row"):
        write_schema(tmp_path)
    (tmp_path / "labels.csv").write_text("image,time\na.jpg,\n")
    with pytest.raises(DatasetError, match="no attribute column beside image, person"):
        write_schema(tmp_path)


@pytest.mark.parametrize(
    ("column", "part"),
    [
        ("hat", "head"),
        ("hair_length", "head"),
        ("Accessory-Glasses", "head"),
        ("upper_color", "upper"),
        ("sleeveLength", "upper"),
        ("TopColor", "upper"),
        ("lower kind", "lower"),
        ("boots", "lower"),
        ("dress", "lower"),
        ("shoulder_bag", "carrying"),
        ("gender", "identity"),
        ("what", "identity"),
    ],
)
def test_the_part_follows_from_the_words_of_the_name(column, part):
    assert guess_part(column) == part
