from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from descry.trainer.datasets import DataConfig, DatasetError, load_dataset, pa100k
from descry.trainer.schema import UNKNOWN, AttributeSchema

ANNOTATION = Path(__file__).parents[2] / "shared" / "data" / "annotations" / "pa100k_annotation.mat"
TABLE = """image,person,camera,split,gender,top,bag
a.jpg,1,1,train,female,red,backpack+handbag
b.jpg,1,2,train,,blue,none
c.jpg,2,1,test,male,red,backpack
d.jpg,,,val,female,,handbag
e.jpg,3,3,test,female,none,
"""


def make_folder(root: Path, table: str = TABLE) -> DataConfig:
    for index, name in enumerate("abcde"):
        Image.new("RGB", (8, 16), (40 * index, 0, 0)).save(root / f"{name}.jpg")
    (root / "labels.csv").write_text(table)
    return DataConfig(name="folder", root=str(root))


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
        (("d.jpg,,,val", "d.jpg,,,validation"), "row 5: split 'validation' is not one of train, val, test"),
        (("e.jpg,3,3,test,female,none,", "e.jpg,3,3"), "row 6: 7 cells wanted"),
        (("image,", "file,"), "needs an `image` column"),
    ],
)
def test_a_wrong_table_is_named_by_row(tmp_path, change, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset(make_folder(tmp_path, TABLE.replace(*change)))


def test_a_value_that_the_schema_lacks_is_named(tmp_path):
    config = make_folder(tmp_path)
    (tmp_path / "schema.json").write_text(load_dataset(config).schema.to_json())
    (tmp_path / "labels.csv").write_text(TABLE.replace(",blue,", ",pink,"))
    with pytest.raises(DatasetError, match="row 3, b.jpg: top: 'pink' is not one of blue, red"):
        load_dataset(config)
    (tmp_path / "labels.csv").write_text(TABLE.replace(",top,", ",hat,"))
    with pytest.raises(DatasetError, match="column 'hat' is not in .*schema.json; valid: gender, top, bag"):
        load_dataset(config)


def test_a_missing_table_and_an_unknown_dataset_are_named(tmp_path):
    with pytest.raises(DatasetError, match="labels.csv does not exist"):
        load_dataset(DataConfig(name="folder", root=str(tmp_path)))
    with pytest.raises(DatasetError, match="'cuhk' is not one of folder, pa100k, synthetic"):
        load_dataset(DataConfig(name="cuhk"))


def make_pa100k(root: Path, **changes) -> DataConfig:
    generator = np.random.default_rng(0)
    content = {"attributes": np.zeros((26, 1), object)}
    for split, start in (("train", 1), ("val", 4), ("test", 5)):
        names = [f"{number:06d}.jpg" for number in range(start, start + (3 if split == "train" else 1))]
        content[f"{split}_images_name"] = np.array([[name] for name in names], dtype=object)
        content[f"{split}_label"] = generator.integers(0, 2, (len(names), 26)).astype(np.uint8)
        for name in names:
            Image.new("RGB", (8, 16)).save(root / name)
    content = {key: value for key, value in {**content, **changes}.items() if value is not None}
    savemat(root / "annotation.mat", content)
    return DataConfig(name="pa100k", root=str(root))


def test_pa100k_keeps_the_official_split(tmp_path):
    persons = load_dataset(make_pa100k(tmp_path))
    assert persons.splits.tolist() == ["train"] * 3 + ["val", "test"]
    assert persons.schema.size == 26
    assert [path.name for path in persons.images][-1] == "000005.jpg"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_label": None}, "field 'val_label' is missing"),
        ({"val_label": np.zeros((1, 25), np.uint8)}, r"val_label is \(1, 25\), wanted \(1, 26\)"),
        ({"val_label": np.full((1, 26), 2, np.uint8)}, r"val_label row 0 \(000004.jpg\) column 0 is 2"),
    ],
)
def test_a_wrong_pa100k_annotation_is_named(tmp_path, changes, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset(make_pa100k(tmp_path, **changes))


def test_a_truncated_mat_and_an_empty_folder_are_named(tmp_path):
    config = make_pa100k(tmp_path)
    content = (tmp_path / "annotation.mat").read_bytes()
    (tmp_path / "annotation.mat").write_bytes(content[:300])
    with pytest.raises(DatasetError, match="annotation.mat is not a readable .mat file"):
        load_dataset(config)
    (tmp_path / "annotation.mat").write_bytes(content)
    for path in tmp_path.glob("*.jpg"):
        path.unlink()
    with pytest.raises(DatasetError, match="no image of .*annotation.mat is here"):
        load_dataset(config)


@pytest.mark.skipif(not ANNOTATION.is_file(), reason="PA-100K's annotation.mat is not here")
def test_pa100k_published_counts():
    names, attributes, splits = pa100k.read_annotation(ANNOTATION)
    assert len(names) == 100_000 and names[90_000] == "090001.jpg"
    assert [int((splits == split).sum()) for split in ("train", "val", "test")] == [80_000, 10_000, 10_000]
    assert len(np.unique(attributes[splits == "test"], axis=0)) == 849
    for group, where in pa100k.SCHEMA:
        if group.kind == "choice":
            assert attributes[:, where].sum(axis=1).max() == 1, group.name


def test_category_aware_split_has_seen_and_unseen_test_categories():
    generator = np.random.default_rng(0)
    attributes = (generator.random((1000, 8)) < 0.3).astype(np.uint8)
    splits = pa100k.category_aware_split(attributes, seed=1)
    assert [int((splits == split).sum()) for split in ("train", "val", "test")] == [720, 80, 200]
    training = {tuple(row) for row in attributes[splits == "train"].tolist()}
    seen = [tuple(row) in training for row in attributes[splits == "test"].tolist()]
    assert 0.4 < np.mean(seen) < 0.7
    assert (pa100k.category_aware_split(attributes, seed=1) == splits).all()
    assert (pa100k.category_aware_split(attributes, seed=2) != splits).any()


def test_rows_of_another_length_than_the_images_are_refused(tmp_path):
    persons = load_dataset(make_folder(tmp_path))
    with pytest.raises(DatasetError, match="4 persons for 5 images"):
        type(persons)(**{**vars(persons), "persons": persons.persons[:4]})
    assert isinstance(persons.schema, AttributeSchema)
