"""Search by wrong descriptions: the mistakes, what confidence does to the distances, and the command."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_methods import SCHEMA, build, training_rows
from torch.nn import functional

from descry.trainer import mistaken
from descry.trainer.confidence import confident_distances
from descry.trainer.datasets.persons import PersonDataset
from descry.trainer.evaluation import evaluate_search
from descry.trainer.extraction import Extracted, description_distances
from descry.trainer.methods import METHODS
from descry.trainer.retrieval import Fusion

GROUPS = len(SCHEMA.groups)
FUSION = Fusion(0.2, 3.0, 1.5)


@functools.cache
def searched(name="asmr"):
    """An untrained method, random embeddings of 60 images, and scores that are their labels with much noise."""
    method, rows = build(name).eval(), training_rows()
    nobody = np.full(len(rows), -1)
    people = PersonDataset("people", SCHEMA, (Path("x.png"),) * len(rows), rows, nobody, nobody, nobody.astype(str))
    generator = torch.Generator().manual_seed(0)
    embeddings = functional.normalize(torch.randn(len(rows), method.embedding_size, generator=generator), dim=1)
    noise = torch.rand(len(rows), SCHEMA.size, generator=generator)
    return method, Extracted(embeddings, 0.3 * torch.from_numpy(rows).float() + 0.7 * noise, people), FUSION


@pytest.fixture
def drawn():
    described, patterns = torch.from_numpy(training_rows()), searched()[0].labels.patterns
    return described, patterns, mistaken.draw_mistakes(described, patterns, torch.Generator().manual_seed(0))


def test_a_mistake_is_another_legal_value_of_its_group(drawn):
    described, patterns, mistakes = drawn
    for row, said in zip(described, mistakes.values, strict=True):
        for (_, where), pattern in zip(SCHEMA, patterns, strict=True):
            assert said[where].tolist() != row[where].tolist()
            assert said[where].tolist() in pattern.tolist()
    assert (mistakes.possible == GROUPS).all()
    assert mistakes.places.sort(dim=1)[0].tolist() == [list(range(GROUPS))] * len(described)


def test_every_other_value_is_drawn_and_every_group_comes_first(drawn):
    described, patterns, mistakes = drawn
    many = described[:1].expand(500, -1)
    mistakes = mistaken.draw_mistakes(many, patterns, torch.Generator().manual_seed(0))
    for (_, where), pattern in zip(SCHEMA, patterns, strict=True):
        others = (pattern != described[0, where]).any(dim=1).sum()
        assert len(mistakes.values[:, where].unique(dim=0)) == others
    assert mistakes.places.argmin(dim=1).unique().tolist() == list(range(GROUPS))


def test_a_group_that_has_no_other_value_is_mistaken_last_and_stays_as_it_is(drawn):
    described, patterns, _ = drawn
    where = next(iter(SCHEMA.slices.values()))
    patterns = [described[:1, where], *patterns[1:]]
    mistakes = mistaken.draw_mistakes(described, patterns, torch.Generator().manual_seed(0))
    same = (described[:, where] == described[0, where]).all(dim=1)
    assert 0 < same.sum() < len(described)
    assert torch.equal(mistakes.values[same][:, where], described[same][:, where])
    assert (mistakes.places[same, 0] == GROUPS - 1).all() and not (mistakes.places[~same, 0] == GROUPS - 1).all()
    assert torch.equal(mistakes.possible, GROUPS - same.long())


def stated(monkeypatch, name, seed=0):
    """What is searched for: the attributes and the confidence of every search."""
    method, gallery, fusion = searched(name)
    calls = []

    def record(method, gallery, fusion, attributes, confidence, truths):
        calls.append((attributes, confidence))
        return {("fused", "category"): {"mAP": 0.5, "rank1": 0.5}}

    monkeypatch.setattr(mistaken, "search_described", record)
    mistaken.measure_mistaken(method, gallery, fusion, draws=2, seed=seed)
    return calls


def test_exactly_m_groups_are_wrong_and_have_the_confidence(monkeypatch):
    calls = stated(monkeypatch, "asmr")
    described = calls[0][0]
    levels = [(m, confidence) for m in range(4) for confidence in (1.0, 0.5, 0.0) for _ in range(2 if m else 1)]
    for (count, expected), (attributes, confidence) in zip(levels, calls, strict=True):
        slices = SCHEMA.slices.values()
        wrong = torch.stack([(attributes[:, where] != described[:, where]).any(dim=1) for where in slices], dim=1)
        assert (wrong.sum(dim=1) == count).all()
        for number, where in enumerate(slices):
            assert (confidence[:, where] == torch.where(wrong[:, number, None], expected, 1.0)).all()


def test_all_methods_get_the_same_descriptions_and_another_seed_others(monkeypatch):
    first, second, other = (stated(monkeypatch, *which) for which in (("asmr",), ("cerberus",), ("asmr", 1)))
    assert all(torch.equal(one[0], two[0]) for one, two in zip(first, second, strict=True))
    assert not torch.equal(first[-1][0], other[-1][0])


def test_without_a_mistake_it_is_the_search_by_category():
    method, gallery, fusion = searched()
    table = evaluate_search(method, gallery, fusion)["search"]
    points = mistaken.measure_mistaken(method, gallery, fusion, draws=2, seed=0)
    assert len(points) == 4 * 3 * 3
    for point in points:
        if not point.mistaken:
            expected = table[point.distance]["all"]
            assert (point.mAP, point.rank1) == pytest.approx((expected["mAP"], expected["rank1"]), abs=1e-9)
            assert point.mAP_deviation == point.rank1_deviation == 0
    par = {(point.mistaken, point.confidence): point.mAP for point in points if point.distance == "par"}
    assert par[0, 1.0] > par[1, 1.0] > par[2, 1.0] > par[3, 1.0]
    assert all(par[m, 1.0] < par[m, 0.5] < par[m, 0.0] for m in (1, 2, 3))


@pytest.fixture
def described():
    """Descriptions, and for every attribute group of each a confidence: 0, 1 or one of nine between."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 11, (8, GROUPS), generator=generator).float() / 10
    sizes = torch.tensor([group.size for group in SCHEMA.groups])
    return torch.from_numpy(training_rows(8)), levels.repeat_interleave(sizes, dim=1)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_confidence_one_is_stated_and_zero_is_unknown_exactly(name, described):
    method, gallery, _ = searched(name)
    attributes, confidence = described
    known = (confidence > 0.4).float()
    for ours, plain in zip(
        confident_distances(method, attributes, known, gallery),
        description_distances(method, attributes, known, gallery),
        strict=True,
    ):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize(("kind", "power"), [("euclidean", 2), ("likelihood", 1)])
def test_distances_are_means_over_the_threshold(name, kind, power, described):
    """Ten thresholds, one between any two of the levels."""
    method, gallery, _ = searched(name)
    attributes, confidence = described
    par, embedding = confident_distances(method, attributes, confidence, gallery, kind)
    thresholds = [number / 10 + 0.05 for number in range(10)]
    plain = [
        description_distances(method, attributes, confidence > threshold, gallery, kind) for threshold in thresholds
    ]
    torch.testing.assert_close(embedding, torch.stack([one for _, one in plain]).mean(dim=0), atol=1e-5, rtol=0)
    sums = torch.stack([one for one, _ in plain]).pow(power).mean(dim=0)
    torch.testing.assert_close(par.pow(power), sums, atol=1e-4, rtol=0)


def test_the_par_distance_is_weighted_by_confidence(described):
    method, gallery, _ = searched()
    attributes, confidence = described
    par, _ = confident_distances(method, attributes, confidence, gallery)
    for query in range(len(attributes)):
        for image in range(len(gallery.scores)):
            terms = [
                float(weight) * (int(bit) - float(score)) ** 2
                for weight, bit, score in zip(confidence[query], attributes[query], gallery.scores[image], strict=True)
            ]
            assert float(par[query, image]) == pytest.approx(sum(terms) ** 0.5, abs=1e-5)


def test_the_command_prints_a_table_and_draws_all_checkpoints(trained, tmp_path, capsys):
    flags = ["--draws", "1", "--figure", str(tmp_path / "curve.png")]
    assert mistaken.main([str(trained), str(trained), *flags]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    keys = [(line[0], line[1]) for line in lines if line and line[0].isdigit()]
    assert keys == [(str(m), confidence) for m in range(4) for confidence in ("1.0", "0.5", "0.0")] * 2
    with Image.open(tmp_path / "curve.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
    assert mistaken.main([str(trained), "--draws", "1", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["method"] == "asmr" and result["seed"] == 0
    assert {(point["mistaken"], point["distance"]) for point in result["points"]} == {
        (m, distance) for m in range(4) for distance in ("embedding", "par", "fused")
    }


def test_wrong_input_is_named(tmp_path, capsys):
    assert mistaken.main([str(tmp_path)]) == 1
    assert "mistaken: " in capsys.readouterr().err
