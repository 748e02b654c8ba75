"""Market-1501, DukeMTMC, PETA and PA-100K in their published layouts, whole and damaged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks import make_duke, make_market, make_pa100k, make_peta

from descry.trainer.datasets import DatasetError, dukemtmc, load_dataset, market1501
from descry.trainer.datasets.peta_attributes import SCHEMAS
from descry.trainer.schema import UNKNOWN
from descry.trainer.transforms import CropDataset, ImageConfig


def set_field(split, name, value):
    return lambda splits: splits[split].__setitem__(name, value)


def drop_field(split, name):
    return lambda splits: splits[split].pop(name)


def test_market_reads_split_person_camera_and_queries_from_the_names(tmp_path):
    persons = load_dataset(make_market(tmp_path))
    assert persons.names == (
        "bounding_box_train/0002_c1s1_000451_03",
        "bounding_box_train/0007_c2s1_000100_01",
        "bounding_box_test/0000_c1s1_000001_00",
        "bounding_box_test/0001_c1s1_001051_00",
        "bounding_box_test/0001_c2s1_001051_00",
        "query/0001_c1s1_001052_00",
    )
    assert persons.splits.tolist() == ["train", "train", "distractor", "test", "test", "test"]
    assert persons.persons.tolist() == [2, 7, -1, 1, 1, 1]
    assert persons.cameras.tolist() == [1, 2, 1, 1, 2, 1]
    assert persons.queries.tolist() == [False] * 5 + [True]
    assert (persons.attributes[2] == UNKNOWN).all() and (persons.attributes[[0, 1, 3]] != UNKNOWN).all()
    assert any("1 junk images" in note for note in persons.notes)
    assert f"{tmp_path / 'bounding_box_train'}: 2 of 12936 images" in persons.missing


def test_market_attributes_are_read_by_name_into_both_vectors(tmp_path):
    def change(splits):
        for name, value in {"age": 3, "backpack": 2, "upred": 2, "hair": 2, "gender": 2, "clothes": 2}.items():
            splits["train"][name] = np.array([value, 1], np.uint8)

    config = make_market(tmp_path, change)
    persons = load_dataset(config)
    assert persons.schema.size == 30 and len(persons.schema.groups) == 10
    assert persons.schema.decode(persons.attributes[0]) == {
        "age": ("adult",),
        "bag": ("backpack",),
        "lower_color": ("none",),
        "upper_color": ("red",),
        "lower_style": ("pants",),
        "lower_length": ("long",),
        "sleeves": ("long",),
        "hair_length": ("long",),
        "hat": ("no",),
        "gender": ("female",),
    }
    one_hot = load_dataset(replace(config, schema="market1501_onehot"))
    assert one_hot.schema.size == 39 and [group.size for group in one_hot.schema.groups] == [4, 4, 10, 9] + [2] * 6
    decoded = one_hot.schema.decode(one_hot.attributes[0])
    assert decoded["lower_color"] == ("no_color",) and decoded["upper_color"] == ("red",)
    assert (one_hot.attributes[:2].sum(axis=1) == 10).all()


def test_the_parts_are_those_of_cerberus():
    parts = {group.name: group.part for group in market1501.PAPER.schema.groups}
    assert {name for name, part in parts.items() if part == "head"} == {"hat", "hair_length"}
    assert {name for name, part in parts.items() if part == "upper"} == {"upper_color", "sleeves"}
    assert {name for name, part in parts.items() if part == "lower"} == {"lower_color", "lower_length", "lower_style"}
    assert {name for name, part in parts.items() if part == "identity"} == {"gender", "age"}
    duke = {group.name: group.part for group in dukemtmc.ATTRIBUTES.schema.groups}
    assert {name for name, part in duke.items() if part == "lower"} == {"lower_color", "shoes", "boots"}
    assert {name for name, part in duke.items() if part == "head"} == {"hat"}


def test_duke_keeps_several_lower_colors_and_corrects_an_illegal_top(tmp_path):
    def change(splits):
        splits["train"]["top"] = np.array([0, 1], np.uint8)
        splits["test"] |= {"downred": np.array([2], np.uint8), "downblue": np.array([2], np.uint8)}

    persons = load_dataset(make_duke(tmp_path, change))
    assert persons.schema.decode(persons.attributes[0])["upper_length"] == ("long",)
    assert persons.schema.decode(persons.attributes[1])["upper_length"] == ("short",)
    assert persons.schema.decode(persons.subset("test").attributes[0])["lower_color"] == ("red", "blue")
    assert any("withdrawn" in note for note in persons.notes)
    assert any("person 0002 is read as long" in note for note in persons.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_field("test", "hat"), r"market_attribute.mat: field 'test.hat' is missing; it holds test.age"),
        (set_field("train", "age", np.array([1, 7], np.uint8)), r"train.age, row 2, person 0007: 7 is not one of 1, 2"),
        (set_field("train", "hat", np.array([1], np.uint8)), r"train.hat has 1 values for 2 persons"),
        (set_field("test", "image_index", np.array(["0003"], object)), r"0001_c1s1_001051_00.jpg: person 1 is not in"),
        (
            set_field("train", "image_index", np.array(["0002", "0002"], object)),
            r"train.image_index lists person 0002 more than once",
        ),
        (lambda splits: splits.pop("train"), r"field 'market_attribute.train' is missing"),
    ],
)
def test_a_wrong_market_annotation_is_named(tmp_path, change, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset(make_market(tmp_path, change))


def test_missing_folders_and_strange_names_are_named(tmp_path):
    config = make_market(tmp_path)
    (tmp_path / "query" / "person.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"query/person.jpg: the name does not begin with PERSON_cCAMERA"):
        load_dataset(config)
    for path in (tmp_path / "query").iterdir():
        path.unlink()
    (tmp_path / "query").rmdir()
    (tmp_path / "market_attribute.mat").unlink()
    with pytest.raises(DatasetError, match=r"needs .*/query, .*/market_attribute.mat; see docs/datasets.md"):
        load_dataset(config)
    with pytest.raises(DatasetError, match=r"data.schema: 'market27' is not one of market1501, market1501_onehot"):
        load_dataset(replace(make_market(tmp_path), schema="market27"))


@pytest.mark.parametrize("make", [make_market, make_peta, make_pa100k])
def test_a_truncated_annotation_is_named(tmp_path, make):
    config = make(tmp_path)
    path = next(tmp_path.glob("*.mat"))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match=f"{path.name} is not a readable .mat file"):
        load_dataset(config)


@pytest.mark.parametrize("make", [make_market, make_duke, make_peta, make_pa100k])
def test_an_image_that_does_not_decode_is_named_when_it_is_used(tmp_path, make):
    persons = load_dataset(make(tmp_path))
    persons.images[1].write_bytes(persons.images[1].read_bytes()[:60])
    crops = CropDataset(persons, ImageConfig(height=16, width=8))
    assert crops[0]["image"].shape == (3, 16, 8)
    with pytest.raises(DatasetError, match=f"cannot decode {persons.images[1]}"):
        crops[1]


def test_peta_reads_105_and_35_attributes_in_the_groups_of_asmr(tmp_path):
    def change(struct):
        names = [str(cell) for cell in struct["attribute"].ravel()]
        struct["data"][0, 4 + names.index("lowerBodyThinStripes")] = 1
        struct["data"][0, 4 + names.index("lowerBodyCapri")] = 0
        struct["data"][1, 4 + names.index("personalMale")] = 0
        struct["data"][1, 4 + names.index("personalFemale")] = 1

    config = make_peta(tmp_path, change)
    persons = load_dataset(config)
    assert persons.schema.size == 105 and len(persons.schema.groups) == 17
    assert persons.splits.tolist() == ["train", "val", "train", "test", "train"]
    assert persons.persons.tolist() == [7, 7, 8, 9, 9] and (persons.cameras == -1).all()
    assert persons.schema.decode(persons.attributes[0])["lower_texture"] == ("thin_stripes",)
    selected = load_dataset(replace(config, schema="peta35"))
    assert selected.schema.size == 35
    assert selected.schema.decode(selected.attributes[0])["gender"] == ("male",)
    assert selected.schema.decode(selected.attributes[1])["gender"] == ("female",)


def test_petas_groups_hold_every_attribute_once():
    schema, attributes = SCHEMAS["peta"]
    assert len(set(attributes)) == schema.size == 105
    assert [group.size for group in schema.groups] == [5, 11, 2, 2, 7, 6, 6, 7, 4, 3, 2, 3, 11, 11, 11, 11, 3]


def test_peta_without_an_image_is_partial_and_says_so(tmp_path):
    config = make_peta(tmp_path)
    (tmp_path / "images" / "00003.png").unlink()
    persons = load_dataset(config)
    assert len(persons) == 4 and persons.missing == (str(tmp_path / "images" / "00003.png"),)
    assert any("partial: 1 images" in note for note in persons.notes)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"no image of .*PETA.mat is here; expected files such as .*00001.png"):
        load_dataset(config)


def put(row, column, value):
    def change(struct):
        struct["data"][row, column] = value

    return change


def rename_attribute(struct):
    struct["attribute"][0, 0] = "personalMystery"


def shift_split(struct):
    struct["partion_attribute"][0, 0]["train"] = np.array([[0], [2], [4]])


def repeat_image(struct):
    struct["partion_attribute"][0, 0]["test"] = np.array([[1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda struct: struct.pop("data"), r"PETA.mat: field 'peta.data' is missing"),
        (put(2, 6, 3), r"PETA.mat: data row 3 \(00003.png\), personalLess45 is 3, not 0 or 1"),
        (put(3, 0, 5), r"PETA.mat: data row 4 is of image 5; images must be numbered from 1"),
        (rename_attribute, r"PETA.mat: attribute personalLess15 is missing"),
        (shift_split, r"partion_attribute\[1\].train names image 0; images are numbered from 1 to 5"),
        (repeat_image, r"partion_attribute\[1\].test names image 1 a second time"),
    ],
)
def test_a_wrong_peta_annotation_is_named(tmp_path, change, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset(make_peta(tmp_path, change))


def test_peta_names_the_protocols_and_needs_categories_to_draw_from(tmp_path):
    config = make_peta(tmp_path)
    with pytest.raises(DatasetError, match=r"data.protocol: 'zs' is not one of sal, mtt, random1"):
        load_dataset(replace(config, protocol="zs"))
    with pytest.raises(DatasetError, match=r"1 categories have two images or more, but 200 are drawn"):
        load_dataset(replace(config, protocol="sal"))
    splits = load_dataset(replace(config, protocol="persons", split_seed=3))
    of_person = {person: set(splits.splits[splits.persons == person]) for person in (7, 8, 9)}
    assert all(len(found) == 1 for found in of_person.values())


def test_pa100k_keeps_the_official_split_or_joins_train_and_val(tmp_path):
    config = make_pa100k(tmp_path)
    persons = load_dataset(config)
    assert persons.splits.tolist() == ["train"] * 3 + ["val", "test"] and persons.protocol == "official"
    assert persons.schema.size == 26 and len(persons.schema.groups) == 15
    assert persons.images[-1].name == "000005.jpg" and not persons.missing and not persons.notes
    joined = load_dataset(replace(config, protocol="trainval"))
    assert joined.splits.tolist() == ["train"] * 4 + ["test"]


def test_a_part_of_pa100k_works_and_says_that_it_is_a_part(tmp_path):
    config = make_pa100k(tmp_path)
    for name in ("000004.jpg", "000005.jpg"):
        (tmp_path / name).unlink()
    persons = load_dataset(config)
    assert len(persons) == 3 and persons.protocol == "drawn"
    assert persons.notes[0].startswith("partial: 3 of 5 images, split drawn")
    assert persons.missing == (str(tmp_path / "000004.jpg"), str(tmp_path / "000005.jpg"))


def duplicate_name(content):
    content["val_images_name"][0, 0] = "000001.jpg"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("val_label"), "field 'val_label' is missing"),
        (lambda c: c.update(val_label=np.zeros((1, 25), np.uint8)), r"val_label is \(1, 25\), wanted \(1, 26\)"),
        (lambda c: c.update(train_label=c["train_label"][:2]), r"train_label is \(2, 26\), wanted \(3, 26\)"),
        (lambda c: c.update(val_label=np.full((1, 26), 2)), r"val_label row 0 \(000004.jpg\) column 0 is 2"),
        (duplicate_name, "000001.jpg is listed 2 times"),
    ],
)
def test_a_wrong_pa100k_annotation_is_named(tmp_path, change, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset(make_pa100k(tmp_path, change))


def test_a_folder_without_any_image_is_named(tmp_path):
    config = make_pa100k(tmp_path)
    for path in Path(tmp_path).glob("*.jpg"):
        path.unlink()
    with pytest.raises(DatasetError, match="no image of .*annotation.mat is here"):
        load_dataset(config)


def test_a_share_of_the_training_persons_is_held_out(tmp_path):
    persons = load_dataset(replace(make_market(tmp_path), validation=0.5))
    assert sorted(persons.splits[:2]) == ["train", "val"] and (persons.splits[2:] != "val").all()
    assert any("1 of 2 training persons are held out" in note for note in persons.notes)
    with pytest.raises(DatasetError, match=r"data.validation: 1.5 is not a share between 0 and 1"):
        load_dataset(replace(make_market(tmp_path), validation=1.5))
    with pytest.raises(DatasetError, match=r"peta has a val split already: set data.validation to 0"):
        load_dataset(replace(make_peta(tmp_path / "peta"), validation=0.5))
