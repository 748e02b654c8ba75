from dataclasses import replace

import numpy as np
import pytest
from benchmarks import make_market

from descry.trainer.datasets import DataConfig, DatasetError, PersonDataset, load_dataset
from descry.trainer.datasets.splits import (
    category_aware_split,
    category_numbers,
    exclude_semantic_ids,
    hold_out,
    split_persons,
)
from descry.trainer.schema import AttributeGroup, AttributeSchema


def test_category_aware_split_has_seen_and_unseen_test_categories():
    generator = np.random.default_rng(0)
    attributes = (generator.random((1000, 8)) < 0.3).astype(np.uint8)
    splits = category_aware_split(attributes, seed=1)
    assert [int((splits == split).sum()) for split in ("train", "val", "test")] == [720, 80, 200]
    training = {tuple(row) for row in attributes[splits == "train"].tolist()}
    seen = [tuple(row) in training for row in attributes[splits == "test"].tolist()]
    assert 0.4 < np.mean(seen) < 0.7
    assert (category_aware_split(attributes, seed=1) == splits).all()
    assert (category_aware_split(attributes, seed=2) != splits).any()


def test_nobody_is_in_two_splits():
    persons = np.random.default_rng(0).integers(0, 200, 1000)
    splits = split_persons(persons, seed=3)
    people = {split: set(persons[splits == split]) for split in ("train", "val", "test")}
    assert not people["train"] & people["val"] and not people["train"] & people["test"]
    assert sum(map(len, people.values())) == len(np.unique(persons))
    assert (split_persons(persons, seed=3) == splits).all() and (split_persons(persons, seed=4) != splits).any()


@pytest.fixture
def peoples_dataset(people):
    dataset = load_dataset(DataConfig(name="folder", root=str(people)))
    return replace(dataset, splits=np.where(dataset.splits == "val", "train", dataset.splits))


def test_whole_persons_are_held_out_where_test_categories_are_seen(peoples_dataset):
    categories = category_numbers(peoples_dataset.attributes)
    training = peoples_dataset.splits == "train"
    seen = np.where(training & (categories == categories[training][0]), "train", peoples_dataset.splits)
    seen[np.flatnonzero(categories == categories[training][0])[0]] = "test"
    held = hold_out(replace(peoples_dataset, splits=seen), 0.2, seed=0)
    validated = set(held.persons[held.splits == "val"])
    assert validated and not validated & set(held.persons[held.splits == "train"])
    assert "training persons are held out as val (data.validation 0.2, seed 0)" in held.notes[-1]


def test_whole_categories_are_held_out_where_no_test_category_is_seen(peoples_dataset):
    categories = category_numbers(peoples_dataset.attributes)
    testing = np.isin(categories, categories[peoples_dataset.splits == "test"])
    unseen = replace(peoples_dataset, splits=np.where(testing, "test", "train"))
    held = hold_out(unseen, 0.2, seed=0)
    validated = set(categories[held.splits == "val"])
    assert validated and not validated & set(categories[held.splits == "train"])
    assert (held.splits[testing] == "test").all() and "training categories are held out" in held.notes[-1]
    again, other = hold_out(unseen, 0.2, seed=0), hold_out(unseen, 0.2, seed=1)
    assert (again.splits == held.splits).all() and (other.splits != held.splits).any()


def test_rows_of_another_length_than_the_images_are_refused(tmp_path):
    persons = load_dataset(make_market(tmp_path))
    with pytest.raises(DatasetError, match="4 persons for 6 images"):
        replace(persons, persons=persons.persons[:4])
    with pytest.raises(DatasetError, match="labels other than 0, 1 and unknown"):
        replace(persons, attributes=persons.attributes + 3)


def test_an_unknown_dataset_is_named():
    with pytest.raises(DatasetError, match="'cuhk' is not one of folder, synthetic, market1501, dukemtmc, peta"):
        load_dataset(DataConfig(name="cuhk"))


def test_persons_of_rare_semantic_ids_are_left_out_of_training(tmp_path):
    """A hundred persons, one in fifty with a hat in either colour of hair: of the IDs of the head, two are rare."""
    schema = AttributeSchema(
        "heads",
        (
            AttributeGroup("hat", ("no", "yes"), "binary", "head"),
            AttributeGroup("hair", ("dark", "fair"), "binary", "head"),
        ),
    )
    persons = np.repeat(np.arange(200), 2)
    attributes = np.stack([persons % 50 < 2, persons % 2], axis=1).astype(np.uint8)
    splits = np.where(persons < 100, "train", "test")
    images = tuple(tmp_path / f"{row}.jpg" for row in range(400))
    dataset = PersonDataset("heads", schema, images, attributes, persons, persons % 2, splits)
    one = exclude_semantic_ids(dataset, 1, seed=0)
    left = one.subset("train")
    assert len(left) == 196 and len(one.subset("test")) == 200
    missing = {tuple(row) for row in attributes.tolist()} - {tuple(row) for row in left.attributes.tolist()}
    assert len(missing) == 1 and next(iter(missing))[0] == 1, "one of the two rare ones, with a hat"
    assert "1 semantic IDs of the test split are left out of training" in one.notes[-1]
    assert "4 images, 98 of 100 persons left" in one.notes[-1]
    assert len(exclude_semantic_ids(dataset, 2, seed=0).subset("train")) == 192
    with pytest.raises(DatasetError, match="3 semantic IDs cannot be left out: .* 2 are of at most 5% of its persons"):
        exclude_semantic_ids(dataset, 3, seed=0)
