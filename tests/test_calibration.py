"""Calibration against slow references: reliability, temperatures, match probabilities, "no match", and the command."""

import itertools
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.special import expit

from descry.trainer import calibrate, match_probability, metrics
from descry.trainer.calibration import (
    BINS,
    FEWEST,
    FORMS,
    TEMPERATURES,
    fit_attributes,
    fit_temperature,
    measure_attributes,
    measure_reliability,
)
from descry.trainer.checkpoint import load_checkpoint
from descry.trainer.datasets import DatasetError, PersonDataset
from descry.trainer.extraction import Extracted
from descry.trainer.match_metrics import error_rates, judge_hits, match_metrics, mean_bounds, operating_curve
from descry.trainer.match_probability import TopHits, find_top_hits, fit_match_probability
from descry.trainer.metrics import bootstrap_bounds
from descry.trainer.retrieval import Fusion
from descry.trainer.schema import UNKNOWN, AttributeGroup, AttributeSchema
from descry.trainer.subject import load_subject

SCHEMA = AttributeSchema(
    "three",
    (
        AttributeGroup("hat", ("no", "yes"), "binary", "head"),
        AttributeGroup("color", ("red", "green"), "choice", "upper"),
        AttributeGroup("bag", ("backpack", "suitcase"), "multi", "carrying"),
    ),
)
seeds = st.integers(0, 2**32 - 1)


def draw_scores(generator, shape, tied):
    """Scores in 0..1; tied ones lie on the edges of the bins."""
    return generator.integers(0, BINS + 1, shape) / BINS if tied else generator.random(shape)


def reliability_by_hand(scores, positive):
    """The error, and count, mean score and share of positives of each bin."""
    edges = np.linspace(0, 1, BINS + 1)
    bins = []
    for number in range(BINS):
        low = -1 if number == 0 else edges[number]
        inside = [row for row, score in enumerate(scores) if low < score <= edges[number + 1]]
        mean = sum(scores[row] for row in inside) / len(inside) if inside else math.nan
        share = sum(bool(positive[row]) for row in inside) / len(inside) if inside else math.nan
        bins.append((len(inside), mean, share))
    error = sum(count * abs(mean - share) for count, mean, share in bins if count)
    return error / len(scores) if len(scores) else math.nan, np.array(bins)


@given(seeds, st.integers(0, 60), st.booleans(), st.sampled_from([0, 0.3, 1]))
@settings(max_examples=80, deadline=None)
def test_the_reliability_curve_equals_the_loop(seed, count, tied, share):
    generator = np.random.default_rng(seed)
    scores, positive = draw_scores(generator, count, tied), generator.random(count) < share
    ours = measure_reliability(scores, positive)
    error, bins = reliability_by_hand(scores, positive)
    np.testing.assert_allclose(np.stack([ours.counts, ours.scores, ours.positives], axis=1), bins, atol=1e-12)
    assert ours.error == pytest.approx(error, abs=1e-12, nan_ok=True)


@given(seeds, st.integers(1, 60), st.booleans(), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_attributes_are_measured_over_known_labels(seed, count, tied, share, unknown):
    generator = np.random.default_rng(seed)
    shape = (count, SCHEMA.size)
    scores, labels = draw_scores(generator, shape, tied), (generator.random(shape) < share).astype(np.uint8)
    labels[generator.random(shape) < unknown] = UNKNOWN
    calibration = fit_attributes(scores, labels)
    measured = measure_attributes(calibration, scores, labels, SCHEMA)
    errors = {form: [] for form in FORMS}
    for column, (name, element) in enumerate(measured["elements"].items()):
        rows = [row for row in range(count) if labels[row, column] != UNKNOWN]
        positives = sum(int(labels[row, column]) for row in rows)
        assert (name, element["known"], element["positives"]) == (SCHEMA.elements[column], len(rows), positives)
        assert element["fitted"] == (min(positives, len(rows) - positives) >= FEWEST)
        for form in FORMS:
            values = calibration.apply(form, scores)[:, column]
            expected, _ = reliability_by_hand(values[rows], [labels[row, column] for row in rows])
            assert element["error"][form] == pytest.approx(expected, abs=1e-12, nan_ok=True)
            errors[form] += [expected] if rows else []
    for form in FORMS:
        mean = np.mean(errors[form]) if errors[form] else math.nan
        assert measured["error"][form] == pytest.approx(mean, abs=1e-12, nan_ok=True)
        assert measured["pooled"][form].counts.sum() == (labels != UNKNOWN).sum()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_recovered(temperature):
    generator = np.random.default_rng(0)
    truth = generator.normal(-1, 1.5, 40_000)
    positive = generator.random(len(truth)) < expit(truth)
    scores = expit(temperature * truth).astype(np.float32)
    assert fit_temperature(scores, positive) == pytest.approx(temperature, rel=0.03)
    labels = positive[:, None].astype(np.uint8)
    for form in ("temperature", "isotonic"):
        calibrated = fit_attributes(scores[:, None], labels).apply(form, scores[:, None])[:, 0]
        assert measure_reliability(calibrated, positive).error < 0.01, form
    assert measure_reliability(scores, positive).error > (0.05 if temperature != 1 else 0)


def test_scores_that_say_nothing_or_the_contrary_end_at_the_hottest_temperature():
    positive = np.arange(40) % 2 == 0
    assert fit_temperature(np.where(positive, 0.0, 1.0), positive) == pytest.approx(TEMPERATURES[1], rel=1e-3)
    assert fit_temperature(np.where(positive, 1.0, 0.0), positive) == pytest.approx(TEMPERATURES[0], rel=1e-3)


@given(seeds, st.integers(FEWEST, 40))
@settings(max_examples=25, deadline=None)
def test_a_temperature_changes_nothing_that_is_recognized_and_isotonic_regression_no_order(seed, count):
    generator = np.random.default_rng(seed)
    scores = draw_scores(generator, (2 * count, SCHEMA.size), tied=False).astype(np.float32)
    scores[:5] = np.array([0, 0.5, 0.5 + 1e-7, 0.5 - 1e-7, 1], np.float32)[:, None]
    labels = np.repeat(generator.permutation(2 * count)[:, None] % 2, SCHEMA.size, axis=1).astype(np.uint8)
    calibration = fit_attributes(scores, labels)
    calibrated = calibration.apply("temperature", scores)
    assert ((calibrated > 0.5) == (scores > 0.5)).all() and ((0 <= calibrated) & (calibrated <= 1)).all()
    monotone = calibration.apply("isotonic", scores)
    for ours, before in zip(monotone.T, scores.T, strict=True):
        assert (np.diff(ours[before.argsort()]) >= -1e-12).all() and ours.min() >= 0 and ours.max() <= 1


def test_unknown_labels_and_rare_values_fit_nothing():
    generator = np.random.default_rng(0)
    scores = generator.random((200, SCHEMA.size))
    labels = (generator.random(scores.shape) < scores).astype(np.uint8)
    labels[:100] = UNKNOWN
    whole, known = fit_attributes(scores, labels), fit_attributes(scores[100:], labels[100:])
    np.testing.assert_array_equal(whole.temperatures, known.temperatures)
    np.testing.assert_array_equal(whole.apply("isotonic", scores), known.apply("isotonic", scores))

    labels[100:] = 0
    labels[100 : 100 + FEWEST - 1, 0] = labels[100 : 100 + FEWEST, 1] = 1
    rare = fit_attributes(scores, labels)
    assert rare.temperatures[[0, 2]].tolist() == [1, 1] and rare.temperatures[1] != 1
    assert [regression is None for regression in rare.isotonic] == [True, False, True, True, True]
    for form in FORMS:
        np.testing.assert_allclose(rare.apply(form, scores)[:, 0], scores[:, 0], atol=1e-6)


def curve_by_hand(scores, present):
    """Threshold, false alarms and misses at every score and above them all, the strictest first."""
    points = []
    for threshold in [math.inf, *sorted(set(scores), reverse=True)]:
        alarms = [score >= threshold for score, there in zip(scores, present, strict=True) if not there]
        missed = [score < threshold for score, there in zip(scores, present, strict=True) if there]
        points.append((threshold, sum(alarms) / len(alarms), sum(missed) / len(missed)))
    return points


@given(seeds, st.integers(2, 40), st.booleans(), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_the_operating_curve_equals_the_loop(seed, count, tied, limit):
    generator = np.random.default_rng(seed)
    scores, present = draw_scores(generator, count, tied), generator.random(count) < 0.5
    present[:2] = True, False
    ours, expected = operating_curve(scores, present), curve_by_hand(scores.tolist(), present.tolist())
    np.testing.assert_allclose(np.stack([ours.thresholds, ours.false_alarms, ours.misses], axis=1), expected)
    equal = min(expected, key=lambda point: round(abs(point[1] - point[2]), 12))
    assert ours.equal_error_rate == pytest.approx((equal[1] + equal[2]) / 2)
    strict = [point for point in expected if point[1] <= limit]
    assert ours.misses_at(limit) == pytest.approx(strict[-1][2])
    with mock.patch.object(metrics, "RESAMPLES", 3):
        rates = error_rates(scores, present, np.arange(count), ours.threshold(limit))
    assert (rates["false_alarms"], rates["misses"]) == pytest.approx(strict[-1][1:])
    assert math.isfinite(ours.threshold(limit))


def test_a_curve_needs_somebody_there_and_somebody_absent():
    with pytest.raises(ValueError, match="somebody who is not"):
        operating_curve(np.array([0.1, 0.2]), np.array([True, True]))


@given(seeds, st.integers(0, 40), st.booleans(), st.sampled_from([0, 0.4, 1]))
@settings(max_examples=40, deadline=None)
def test_match_metrics_equal_the_loop(seed, count, tied, share):
    generator = np.random.default_rng(seed)
    probabilities, matches = draw_scores(generator, count, tied), generator.random(count) < share
    with mock.patch.object(metrics, "RESAMPLES", 3):
        ours = match_metrics(probabilities, matches, np.arange(count))
    pairs = [
        (probabilities[right] > probabilities[wrong]) + 0.5 * (probabilities[right] == probabilities[wrong])
        for right in np.flatnonzero(matches)
        for wrong in np.flatnonzero(~matches)
    ]
    squares = [(probability - match) ** 2 for probability, match in zip(probabilities, matches, strict=True)]
    expected = {
        "searches": count,
        "matches": np.mean(matches) if count else math.nan,
        "probability": np.mean(probabilities) if count else math.nan,
        "error": reliability_by_hand(probabilities, matches)[0],
        "brier": np.mean(squares) if count else math.nan,
        "auroc": np.mean(pairs) if pairs else math.nan,
    }
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_intervals_are_over_queries():
    generator = np.random.default_rng(0)
    values = generator.random(50)
    alone = mean_bounds(values, np.arange(50))
    assert alone == pytest.approx(tuple(bootstrap_bounds(torch.from_numpy(values)[:, None])[0].tolist()))
    repeated = mean_bounds(np.repeat(values, 9), np.repeat(np.arange(50), 9))
    assert repeated == pytest.approx(alone), "searches for parts of one description are no further queries"
    counts, values = generator.integers(1, 9, 400), generator.random(400)
    low, high = mean_bounds(np.repeat(values, counts), np.repeat(np.arange(400), counts))
    drawn = [generator.integers(0, 400, 400) for _ in range(1000)]
    means = [(values * counts)[rows].sum() / counts[rows].sum() for rows in drawn]
    assert (low, high) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))), abs=0.006)
    assert all(math.isnan(bound) for bound in mean_bounds(np.empty(0), np.empty(0)))


def hits_of(features, matches, present, distances=None):
    """Searches for complete descriptions, each of a query of its own."""
    count = len(matches)
    distances = features[:, 0] if distances is None else distances
    return TopHits(features, distances, matches, present, np.full(count, 3), np.full(count, 99), np.arange(count))


def test_a_known_law_is_recovered():
    generator = np.random.default_rng(0)
    weights = (-1.5, -8, 0.5, 0.7, -0.4)
    features = generator.normal([2, 0.4, 5, 1, 7], [0.7, 0.1, 2, 0.5, 1], (20_000, 5))
    probabilities = expit(features @ weights + 4.5)
    matches = generator.random(len(features)) < probabilities
    law = fit_match_probability(hits_of(features, matches, matches))
    assert law.weights == pytest.approx(weights, rel=0.1)
    assert law.intercept == pytest.approx(4.5, rel=0.1)
    np.testing.assert_allclose(law(features), probabilities, atol=0.03)
    with mock.patch.object(metrics, "RESAMPLES", 3):
        judged = judge_hits(hits_of(features, matches, matches), law, 0.5)
    assert judged["error"] < 0.02 and judged["auroc"] > 0.75
    assert judged["matches"] == pytest.approx(judged["probability"], abs=2e-3)


def test_separable_hits_leave_the_law_finite():
    features = np.repeat([[1.0, 0.2, 2, 0.7, 5], [3.0, 0.9, 2, 0.7, 5]], 20, axis=0)
    matches = np.arange(40) < 20
    law = fit_match_probability(hits_of(features, matches, matches))
    assert np.isfinite([*law.weights, law.intercept]).all() and law(features)[0] > 0.9 > 0.1 > law(features)[-1]
    with pytest.raises(DatasetError, match="none of 40 top hits match"):
        fit_match_probability(hits_of(features, np.zeros(40, bool), matches))


class Words(torch.nn.Module):
    """A method whose embedding of a description is a random map of what it states."""

    def __init__(self):
        super().__init__()
        self.schema = SCHEMA
        self.labels = SimpleNamespace(categories=torch.zeros(1, SCHEMA.size, dtype=torch.uint8))
        generator = torch.Generator().manual_seed(1)
        self.map = torch.nn.Parameter(torch.randn(2 * SCHEMA.size, 4, generator=generator))

    def encode_attributes(self, attributes, known):
        return F.normalize(torch.cat([attributes, known], dim=1) @ self.map, dim=1)


def random_gallery(seed, count=30, unknown=0.05):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, (count, SCHEMA.size)).astype(np.uint8)
    labels[generator.random(labels.shape) < unknown] = UNKNOWN
    nobody = np.full(count, -1)
    images = tuple(Path(f"{number}.jpg") for number in range(count))
    crops = PersonDataset("few", SCHEMA, images, labels, nobody, nobody, np.full(count, "test"))
    embeddings = F.normalize(torch.from_numpy(generator.normal(size=(count, 4))).float(), dim=1)
    return Extracted(embeddings, torch.from_numpy(generator.random(labels.shape)).float(), crops)


@pytest.mark.parametrize("seed", range(4))
def test_top_hits_equal_the_loop(seed):
    """Block by block, or description by description and image by image."""
    method, gallery, fusion = Words(), random_gallery(seed), Fusion(0.4, 2.0, 1.5)
    labels, groups = gallery.crops.attributes, len(SCHEMA.groups)
    asked = np.unique(labels[(labels != UNKNOWN).all(axis=1)], axis=0)
    drawn = torch.Generator().manual_seed(7)
    places = torch.rand(len(asked), groups, generator=drawn).argsort(dim=1).numpy()
    order = torch.randperm(len(labels), generator=drawn).tolist()
    with mock.patch.object(match_probability, "BLOCK", 3):
        hits = find_top_hits(method, gallery, fusion, shares=(1, 1 / 2), seed=7)
    keys = (hits.images, hits.stated, hits.queries, hits.present)
    found = {key: row for row, key in enumerate(zip(*(key.tolist() for key in keys), strict=True))}
    expected = {}
    for images, stated, query in itertools.product((30, 15), range(1, groups + 1), range(len(asked))):
        description, known = asked[query], np.repeat(places[query] < stated, [group.size for group in SCHEMA.groups])
        unit = method.encode_attributes(*(torch.tensor(known * row)[None].float() for row in (description, 1)))[0]
        fitting, contradicting = [], []
        for image in [image for image in range(30) if order[image] < images]:
            row, scores = labels[image], gallery.scores[image].double().numpy()
            par = math.sqrt(sum(known * (description - scores) ** 2))
            embedding = 1 - float(unit.detach() @ gallery.embeddings[image])
            entry = (0.4 * par / 2.0 + embedding / 1.5, par, embedding)
            if any(known & (row != UNKNOWN) & (row != description)):
                contradicting.append((*entry, False))
            elif not any(known & (row == UNKNOWN)):
                fitting.append((*entry, True))
        for present, searched in {True: fitting + contradicting, False: contradicting}.items():
            if fitting and searched:
                expected[images, stated, query, present] = min(searched)
    assert found.keys() == expected.keys() and len(found) == len(hits)
    for key, (fused, par, embedding, match) in expected.items():
        row, (images, stated, *_) = found[key], key
        features = [par / stated, embedding, stated, math.log(stated), math.log(images)]
        np.testing.assert_allclose(hits.features[row], features, rtol=1e-5, atol=1e-6)
        assert hits.distances[row] == pytest.approx(fused, rel=1e-5) and hits.matches[row] == match
    whole = find_top_hits(method, gallery, fusion, seed=7)
    assert whole.present.sum() == len(asked) * groups and (whole.images == 30).all()


def test_searches_that_prove_nothing_are_refused():
    method, fusion = Words(), Fusion(0.2, 1.0, 1.0)
    with pytest.raises(DatasetError, match="no image has all attributes known"):
        find_top_hits(method, random_gallery(0, unknown=1), fusion)
    gallery = random_gallery(0)
    alike = Extracted(gallery.embeddings[:2], gallery.scores[:2], gallery.crops.rows(np.array([0, 0])))
    alike.crops.attributes[:] = 1
    with pytest.raises(DatasetError, match="all of the 2 images fit every description"):
        find_top_hits(method, alike, fusion)


def test_the_command_prints_draws_and_stores(trained, tmp_path, capsys):
    checkpoint = shutil.copytree(trained, tmp_path / "asmr", ignore=shutil.ignore_patterns("state"))
    before = json.loads((checkpoint / "metrics.json").read_text())
    flags = [f"--features={tmp_path / 'features'}", f"--figure={tmp_path / 'figures' / 'reliability.png'}", "--store"]
    assert calibrate.main([str(checkpoint), *flags]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert "fitted on val (16 images" in lines[0] and "measured on test (48 images" in lines[0]
    after = load_checkpoint(checkpoint)
    names = after.schema.elements
    assert [line.split()[0] for line in lines[3 : 3 + len(names)]] == list(names)
    assert [line.split()[0] for line in lines if line.startswith(("all ", "mean ", "12 "))] == ["mean", "all", "12"]
    with Image.open(tmp_path / "figures" / "reliability.png") as image:
        assert np.asarray(image.convert("L")).std() > 5

    stored = after.metrics.pop("calibration")
    assert after.metrics == before
    assert (stored["split"], stored["images"], stored["descriptions"]) == ("val", 16, 4)
    assert tuple(stored["temperatures"]) == names and all(value > 0 for value in stored["temperatures"].values())
    assert tuple(stored["match"]["weights"]) == match_probability.FEATURES
    assert stored["no_match"]["false_alarms"] <= 0.1 and 0 <= stored["no_match"]["misses"] <= 1
    assert f"no match below a probability of {stored['match']['threshold']:.3f}" in printed.out

    assert calibrate.main([str(checkpoint), flags[0], "--fit", "train", "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert "images that were trained on" in printed.err
    assert result["fit"]["split"] == "train" and result["test"]["split"] == "test"
    assert set(result["match"]["test"]) == {"all", *(f"{stated}" for stated in range(1, 13))}
    assert sum(result["attributes"]["pooled"]["raw"]["counts"]) == 48 * len(names)
    everything = result["match"]["test"]["all"]
    assert everything["searches"] == sum(row["searches"] for row in result["match"]["test"].values()) / 2
    assert 0 <= everything["brier_low"] <= everything["brier"] <= everything["brier_high"] <= 1


def test_what_cannot_be_fitted_is_refused(trained, tmp_path, capsys):
    subject = load_subject(trained, "test")
    assert len(calibrate.fitting_persons(subject, "val")) == 16
    rest = replace(subject, dataset=subject.dataset.rows(np.flatnonzero(subject.dataset.splits != "val")))
    with pytest.raises(DatasetError, match="has no val split. Train with --data.validation=0.1"):
        calibrate.fitting_persons(rest, "val")
    held_out = replace(subject.config, data=replace(subject.config.data, validation=0.1))
    with pytest.raises(DatasetError, match="it has seen images that you hold out now"):
        calibrate.fitting_persons(replace(subject, config=held_out), "val")
    elsewhere = replace(held_out, data=replace(held_out.data, name="market1501"))
    assert len(calibrate.fitting_persons(replace(subject, config=elsewhere), "val")) == 16

    with pytest.raises(SystemExit):
        calibrate.main([str(trained), "--split", "val"])
    assert "--fit and --split are both val" in capsys.readouterr().err
    assert calibrate.main([str(tmp_path)]) == 1
    assert "calibrate: " in capsys.readouterr().err
