"""The published figures, from the original annotation files and, where they are at hand, from the images."""

import hashlib

import numpy as np
import pytest
from benchmarks import ANNOTATIONS, DATA

from descry.trainer.datasets import PUBLISHED, DataConfig, dukemtmc, load_dataset, market1501, pa100k, peta
from descry.trainer.datasets.check import check
from descry.trainer.datasets.peta_attributes import SCHEMAS
from descry.trainer.datasets.reid import read_annotation
from descry.trainer.datasets.statistics import categories, semantic_ids, unseen

MARKET, DUKE = ANNOTATIONS / "market_attribute.mat", ANNOTATIONS / "duke_attribute.mat"
PETA, PA100K = ANNOTATIONS / "PETA.mat", ANNOTATIONS / "pa100k_annotation.mat"


def needs(path):
    return pytest.mark.skipif(not path.exists(), reason=f"{path.name} is not here")


def vectors(path, benchmark, attributes):
    """Attribute vectors of the annotated persons of each split."""
    encoded = {}
    for split in ("train", "test"):
        ids, fields = read_annotation(path, benchmark, split)
        encoded[split] = attributes.encode(benchmark.correct(ids, fields)[0])
    return encoded


def counts(train, test):
    train, test = categories(train), categories(test)
    return len(train), len(test), int(unseen(test, train).sum())


@needs(MARKET)
@pytest.mark.parametrize("name", ["market1501", "market1501_onehot"])
def test_market_has_508_and_484_categories_and_315_unseen(name):
    encoded = vectors(MARKET, market1501.BENCHMARK, market1501.BENCHMARK.attribute_sets[name])
    assert len(encoded["train"]) == 751 and len(encoded["test"]) == 750
    assert counts(encoded["train"], encoded["test"]) == (508, 484, 315)


@needs(MARKET)
def test_market_values_exclude_each_other():
    for split, vector in vectors(MARKET, market1501.BENCHMARK, market1501.PAPER).items():
        for group, where in market1501.PAPER.schema:
            assert vector[:, where].sum(axis=1).max() == 1, (split, group.name)
    none = vectors(MARKET, market1501.BENCHMARK, market1501.PAPER)["train"]
    where = market1501.PAPER.schema.slices
    assert [int((none[:, where[name]].sum(axis=1) == 0).sum()) for name in ("upper_color", "lower_color")] == [78, 30]


@needs(MARKET)
def test_market_has_66_and_61_semantic_ids_and_2_unseen():
    encoded = vectors(MARKET, market1501.BENCHMARK, market1501.PAPER)
    train, test = (semantic_ids(encoded[split], market1501.PAPER.schema) for split in ("train", "test"))
    assert {part: len(ids) for part, ids in train.items()} == {
        "head": 4,
        "upper": 16,
        "lower": 34,
        "identity": 8,
        "carrying": 4,
    }
    assert sum(map(len, train.values())) == 66 and sum(map(len, test.values())) == 61
    assert sum(int(unseen(test[part], train[part]).sum()) for part in test) == 2


@needs(DUKE)
def test_duke_has_300_and_387_categories_and_229_unseen_as_annotated():
    raw = {}
    for split, persons in (("train", 702), ("test", 1110)):
        ids, fields = read_annotation(DUKE, dukemtmc.BENCHMARK, split)
        assert len(ids) == persons
        raw[split] = np.stack([fields[name] for name in dukemtmc.BENCHMARK.legal], axis=1)
    assert counts(raw["train"], raw["test"]) == (300, 387, 229)


@needs(DUKE)
def test_duke_with_a_legal_top_has_46_semantic_ids_and_keeps_229_unseen():
    schema = dukemtmc.ATTRIBUTES.schema
    encoded = vectors(DUKE, dukemtmc.BENCHMARK, dukemtmc.ATTRIBUTES)
    assert schema.size == 23
    assert counts(encoded["train"], encoded["test"]) == (299, 387, 229)
    assert sum(map(len, semantic_ids(encoded["train"], schema).values())) == 46
    lower = encoded["test"][:, schema.slices["lower_color"]].sum(axis=1)
    assert np.bincount(lower.astype(int)).tolist() == [11, 1076, 22, 1]


@pytest.fixture(scope="module")
def petas_annotation():
    if not PETA.exists():
        pytest.skip("PETA.mat is not here")
    return peta.read_annotation(PETA)


def test_peta_has_7769_categories_and_2090_with_two_images(petas_annotation):
    assert petas_annotation.labels.shape == (19000, 105) and len(np.unique(petas_annotation.persons)) == 8699
    sizes = np.unique(petas_annotation.labels, axis=0, return_counts=True)[1]
    assert len(sizes) == 7769 and (sizes > 1).sum() == 2090 and sizes[sizes > 1].sum() == 13321


@pytest.mark.parametrize(
    ("protocol", "train", "test", "unseen35"), [("sal", 11886, 1435, 115), ("mtt", 12140, 1181, 110)]
)
def test_petas_category_splits(petas_annotation, protocol, train, test, unseen35):
    splits = peta.split(petas_annotation, protocol, seed=0)
    training, testing = splits == "train", splits == "test"
    assert (training.sum(), testing.sum()) == (train, test)
    assert counts(petas_annotation.labels[training], petas_annotation.labels[testing]) == (1890, 200, 200)
    columns = [petas_annotation.attributes.index(name) for name in SCHEMAS["peta35"][1]]
    selected = petas_annotation.labels[:, columns]
    assert counts(selected[training], selected[testing])[1:] == (184, unseen35)
    if protocol == "sal":
        numbers = sorted(name.removesuffix(".png") for name in np.array(petas_annotation.names)[testing])
        digest = hashlib.sha256("\n".join(numbers).encode()).hexdigest()
        assert digest == "b841e716ce26886bea5f99e84882e9609b70a1031adae6cb06f77be58ccf2e49"
        assert digest == PUBLISHED["peta"]["sal", "peta"]["test digest"]
        persons = petas_annotation.persons
        assert not set(persons[training]) & set(persons[testing])
        _, sizes = np.unique(petas_annotation.labels[testing], axis=0, return_counts=True)
        assert (sizes == 2).sum() == 121


def test_petas_groups_have_the_patterns_that_were_counted(petas_annotation):
    schema, attributes = SCHEMAS["peta"]
    labels = petas_annotation.labels[peta.split(petas_annotation, "sal", seed=0) == "train"]
    patterns = {}
    for group, where in schema:
        columns = [petas_annotation.attributes.index(name) for name in attributes[where]]
        patterns[group.name] = len(np.unique(labels[:, columns], axis=0))
    expected = dict(zip(patterns, (6, 40, 3, 3, 17, 12, 15, 16, 5, 3, 2, 5, 46, 22, 11, 15, 4), strict=True))
    # The released list of lower textures, with the luggage case in place of the thin stripes, has 5 patterns.
    assert patterns == expected


def test_petas_selected_attributes_are_the_files(petas_annotation):
    selected = [petas_annotation.attributes[number - 5] for number in range(5, 40)]
    assert set(SCHEMAS["peta35"][1]) == set(selected)


@pytest.mark.parametrize("protocol", peta.RANDOM)
def test_petas_random_splits_are_partitions(petas_annotation, protocol):
    splits = peta.split(petas_annotation, protocol, seed=0)
    assert [int((splits == name).sum()) for name in ("train", "val", "test")] == [9500, 1900, 7600]


def test_petas_person_disjoint_split_shares_nobody(petas_annotation):
    splits = peta.split(petas_annotation, "persons", seed=0)
    people = [set(petas_annotation.persons[splits == name]) for name in ("train", "val", "test")]
    assert sum(map(len, people)) == 8699 and not people[0] & people[1] and not people[0] & people[2]
    assert [round(len(group) / 8699, 1) for group in people] == [0.6, 0.1, 0.3]


@needs(PA100K)
def test_pa100k_has_849_test_categories():
    names, attributes, splits = pa100k.read_annotation(PA100K)
    assert len(names) == 100_000 and names[90_000] == "090001.jpg"
    assert [int((splits == split).sum()) for split in ("train", "val", "test")] == [80_000, 10_000, 10_000]
    tests = categories(attributes[splits == "test"])
    assert len(categories(attributes[splits == "train"])) == 2020
    sizes = np.unique(attributes[splits == "test"], axis=0, return_counts=True)[1]
    assert len(tests) == 849 and (sizes > 1).sum() == 588
    for group, where in pa100k.SCHEMA:
        if group.kind == "choice":
            assert attributes[:, where].sum(axis=1).max() == 1, group.name


@pytest.mark.parametrize(
    ("name", "root", "protocol", "schema", "annotation"),
    [
        ("market1501", "Market-1501-v15.09.15", "", "", MARKET),
        ("peta", "peta", "sal", "", PETA),
        ("peta", "peta", "mtt", "peta35", PETA),
    ],
)
def test_the_images_at_hand_are_as_published(name, root, protocol, schema, annotation):
    if not (DATA / root).is_dir():
        pytest.skip(f"data/{root} is not here")
    config = DataConfig(name=name, root=str(DATA / root), labels=str(annotation), protocol=protocol, schema=schema)
    report = check(load_dataset(config), decode=False)
    assert report.passed and report.published, (report.differing, report.dataset.missing[:3])
