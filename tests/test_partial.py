"""Search by part of a description: truths against loops, ends of the curves, and the command."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from descry.trainer import imperfect, mistaken, partial
from descry.trainer.evaluation import evaluate_search
from descry.trainer.extraction import Extracted, description_distances
from descry.trainer.metrics import search_metrics
from descry.trainer.protocols import category_queries
from descry.trainer.retrieval import Fusion
from descry.trainer.schema import UNKNOWN
from descry.trainer.subject import Extractor, load_subject


@pytest.fixture(scope="module")
def searched(trained):
    """A method, what it says of the test split, and its fusion."""
    subject = load_subject(trained, "test")
    checkpoint = subject.checkpoint
    return checkpoint.method, Extractor(subject)(subject.persons), Fusion(**checkpoint.metrics["fusion"])


def test_a_description_keeps_what_it_has_stated(searched):
    schema = searched[0].schema
    places = torch.rand(9, len(schema.groups), generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    before = torch.zeros(9, schema.size, dtype=torch.bool)
    for stated in range(1, len(schema.groups) + 1):
        known = imperfect.first_groups(places, stated, schema)
        whole = torch.stack([known[:, where].all(dim=1) for _, where in schema], dim=1)
        some = torch.stack([known[:, where].any(dim=1) for _, where in schema], dim=1)
        assert torch.equal(whole, some) and (whole.sum(dim=1) == stated).all()
        assert known[before].all()
        before = known
    assert before.all()


def test_agreeing_images_equal_the_loop():
    generator = np.random.default_rng(0)
    described, known = generator.integers(0, 2, (12, 5)).astype(np.uint8), generator.random((12, 5)) < 0.4
    labels = generator.choice([0, 1, UNKNOWN], (30, 5), p=[0.4, 0.4, 0.2]).astype(np.uint8)
    ours = partial.agreeing_images(*map(torch.from_numpy, (described, known, labels)))
    for query in range(12):
        for image in range(30):
            assert ours[query, image] == (labels[image] == described[query])[known[query]].all()


def test_a_search_by_part_equals_the_plain_one(searched, monkeypatch):
    """Ranked in blocks and with both truths at once, or query by query with the metrics of a whole search.

    To 1e-3: products of another shape round differently, and two images that are as near as that trade places.
    """
    method, gallery, fusion = searched
    queries = category_queries(gallery.crops, method.labels.categories)
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(len(queries.attributes), len(method.schema.groups), generator=generator).argsort(dim=1)
    known = imperfect.first_groups(places, 2, method.schema)
    monkeypatch.setattr(imperfect, "BLOCK", 3)
    ours = partial.search_partially(method, gallery, queries, known, fusion)
    stated = queries.attributes * known
    par, embedding = description_distances(method, stated, known, gallery)
    fused = fusion.par_weight * par / fusion.max_par + embedding / fusion.max_emb
    agreeing = partial.agreeing_images(queries.attributes, known, gallery.attributes)
    for distance, values in {"embedding": embedding, "par": par, "fused": fused}.items():
        for truth, relevant in {"agreeing": agreeing, "category": queries.relevant}.items():
            assert ours[distance, truth] == pytest.approx(search_metrics(values, relevant), abs=1e-3), distance


def test_stating_everything_is_the_search_by_category(searched):
    points = partial.measure_partial(*searched, draws=2, seed=0)
    method, gallery, fusion = searched
    table = evaluate_search(method, gallery, fusion)["search"]
    groups = len(method.schema.groups)
    assert len(points) == groups * 3 * 2
    for point in points:
        if point.stated == groups:
            expected = table[point.distance]["all"]
            assert (point.mAP, point.rank1) == pytest.approx((expected["mAP"], expected["rank1"]), abs=1e-6)
            assert point.mAP_deviation == point.rank1_deviation == 0
    assert any(point.mAP_deviation > 0 for point in points)


def test_perfect_scores_find_everything_that_fits(searched):
    """With the labels as scores, the PAR distance of what is stated is 0 for exactly the agreeing images."""
    method, gallery, fusion = searched
    perfect = Extracted(gallery.embeddings, gallery.attributes.float(), gallery.crops)
    points = partial.measure_partial(method, perfect, fusion, draws=1, seed=0)
    found = [point for point in points if point.distance == "par"]
    assert all(point.mAP == 1 and point.rank1 == 1 for point in found if point.truth == "agreeing")
    by_category = [point.mAP for point in found if point.truth == "category"]
    assert by_category[0] < 0.9 and by_category[-1] == 1


def test_the_draws_follow_the_seed(searched):
    first, again, other = (partial.measure_partial(*searched, draws=1, seed=seed) for seed in (3, 3, 4))
    assert first == again and first != other


def test_the_command_prints_tables_and_draws_all_checkpoints(trained, tmp_path, capsys):
    flags = ["--draws", "2", "--figure", str(tmp_path / "curve.png")]
    assert partial.main([str(trained), str(trained), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("2 draws" in line for line in lines) == 2
    subject = load_subject(trained, "test")
    groups, categories = len(subject.checkpoint.schema.groups), subject.checkpoint.method.categories
    assert [line.split()[0] for line in lines if "agreeing" in line] == [str(k + 1) for k in range(groups)] * 2
    with Image.open(tmp_path / "curve.png") as image:
        assert np.asarray(image.convert("L")).std() > 5

    assert partial.main([str(trained), "--draws", "2", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["method"] == "asmr" and result["draws"] == 2 and result["seed"] == 0
    assert result["descriptions"] == len(category_queries(subject.persons, categories).attributes)
    assert {point["distance"] for point in result["points"]} == {"embedding", "par", "fused"}


def test_a_picture_can_show_some_distances_alone(trained, tmp_path):
    partial_chart, mistaken_chart = (study.chart.showing(["fused"]) for study in (partial.STUDY, mistaken.STUDY))
    assert list(partial_chart.line[1]) == list(mistaken_chart.panel[1]) == ["fused"]
    assert partial_chart.panel == partial.STUDY.chart.panel and mistaken_chart.line == mistaken.STUDY.chart.line
    for module in (partial, mistaken):
        path = tmp_path / f"{module.STUDY.name}.png"
        assert module.main([str(trained), "--draws", "1", "--figure", str(path), "--distances", "fused"]) == 0
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 5


def test_wrong_input_is_named(trained, tmp_path, capsys):
    assert partial.main([str(tmp_path)]) == 1
    assert "partial: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        partial.main([str(trained), "--draws", "0"])
    assert "--draws is at least 1, not 0" in capsys.readouterr().err
