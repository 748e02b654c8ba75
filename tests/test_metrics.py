"""Metrics against brute-force references, ties included."""

import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descry.trainer import metrics
from descry.trainer.metrics import attribute_metrics, query_metrics, recognition_metrics, recognize, search_metrics
from descry.trainer.retrieval import Fusion, fit_fusion, fuse, par_distances
from descry.trainer.schema import UNKNOWN, AttributeGroup, AttributeSchema

SCHEMA = AttributeSchema(
    "three",
    (
        AttributeGroup("hat", ("no", "yes"), "binary", "head"),
        AttributeGroup("color", ("red", "green", "blue"), "choice", "upper"),
        AttributeGroup("bag", ("backpack", "suitcase"), "multi", "carrying"),
    ),
)


def search_by_hand(distances, relevant):
    ranks = {1: [], 5: [], 10: []}
    rectangle, trapezoid, penalties = [], [], []
    for row, good in zip(distances, relevant, strict=True):
        if not any(good):
            continue
        order = sorted(range(len(row)), key=lambda index: (row[index], index))
        hits = [good[index] for index in order]
        for k, found in ranks.items():
            found.append(any(hits[:k]))
        precisions, halves, before, old = [], [], 0, 1.0
        for position, hit in enumerate(hits, start=1):
            new = (before + hit) / position
            if hit:
                precisions.append(new)
                halves.append((old + new) / 2)
                before += 1
            old = before / position
        rectangle.append(sum(precisions) / len(precisions))
        trapezoid.append(sum(halves) / len(halves))
        penalties.append(sum(hits) / (len(hits) - hits[::-1].index(True)))
    mean = {f"rank{k}": np.mean(found) for k, found in ranks.items()}
    averages = {"mAP": np.mean(rectangle), "mAP_trapezoid": np.mean(trapezoid), "mINP": np.mean(penalties)}
    return {**mean, **averages, "queries": float(len(rectangle))}


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 30), st.booleans())
@settings(max_examples=300, deadline=None)
def test_search_metrics_equal_brute_force(seed, queries, gallery, tied):
    generator = np.random.default_rng(seed)
    distances = generator.integers(0, 4, (queries, gallery)) if tied else generator.random((queries, gallery))
    relevant = generator.random((queries, gallery)) < generator.random()
    relevant[0, generator.integers(gallery)] = True
    ours = search_metrics(torch.tensor(distances, dtype=torch.float64), torch.tensor(relevant))
    for name, expected in search_by_hand(distances.tolist(), relevant.tolist()).items():
        assert ours[name] == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("block", [1, 3, 8, 20])
def test_blocks_of_queries_are_measured_as_all_at_once(block):
    generator = np.random.default_rng(0)
    distances = torch.from_numpy(generator.integers(0, 5, (20, 30)).astype(np.float32))
    relevant, ignored = (torch.from_numpy(generator.random((20, 30)) < share) for share in (0.1, 0.3))
    relevant[4] = False
    whole = query_metrics(distances, relevant, ignored)
    with mock.patch.object(metrics, "BLOCK", block):
        assert torch.equal(query_metrics(distances, relevant, ignored).nan_to_num(-1), whole.nan_to_num(-1))
    assert whole[4].isnan().all() and not whole[:4].isnan().any()


def test_search_metrics_known_values():
    distances = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    ours = search_metrics(distances, torch.tensor([[False, True, False, True]]))
    assert ours["rank1"] == 0 and ours["rank5"] == 1
    assert ours["mAP"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert ours["mAP_trapezoid"] == pytest.approx(((0 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)


def test_the_last_hit_decides_the_inverse_negative_penalty():
    hits = torch.tensor([[True, True, False, False], [True, False, False, True], [False, False, True, False]])
    assert metrics.rank_metrics(hits)[:, -1].tolist() == [1, 2 / 4, 1 / 3]


def test_the_interval_of_a_share_is_that_of_the_normal_approximation():
    """300 of 1 000 queries found at rank 1: 0.3 plus or minus 1.96 * sqrt(0.3 * 0.7 / 1000)."""
    measured = torch.zeros(1010, len(metrics.SEARCH_METRICS), dtype=torch.float64)
    measured[:300, 0] = 1
    measured[1000:] = torch.nan
    intervals = metrics.bootstrap_intervals(measured)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert intervals["rank1"] == pytest.approx((0.3 - half, 0.3 + half), abs=0.004)
    assert intervals["mAP"] == (0, 0), "what does not vary has no width"
    assert metrics.bootstrap_intervals(measured) == intervals
    assert all(math.isnan(bound) for bound in metrics.bootstrap_intervals(measured[1000:])["rank1"])


def test_search_metrics_without_a_relevant_image_are_undefined():
    ours = search_metrics(torch.rand(2, 3), torch.zeros(2, 3, dtype=torch.bool))
    assert ours["queries"] == 0 and math.isnan(ours["mAP"])


def attributes_by_hand(scores, labels, known):
    accuracies = []
    for column in range(len(scores[0])):
        rows = [row for row in range(len(scores)) if known[row][column]]
        positive = [row for row in rows if labels[row][column]]
        negative = [row for row in rows if not labels[row][column]]
        if positive and negative:
            right = sum(scores[row][column] > 0.5 for row in positive) / len(positive)
            accuracies.append((right + sum(scores[row][column] <= 0.5 for row in negative) / len(negative)) / 2)
    instances = []
    for row in range(len(scores)):
        columns = [column for column in range(len(scores[0])) if known[row][column]]
        said = {column for column in columns if scores[row][column] > 0.5}
        true = {column for column in columns if labels[row][column]}
        both = len(said & true)
        instances.append([
            both / len(said | true) if said | true else 1,
            both / len(said) if said else 1,
            both / len(true) if true else 1,
            2 * both / (len(said) + len(true)) if said or true else 1,
        ])  # fmt: skip
    names = ("accuracy", "precision", "recall", "F1")
    return {
        "mA": np.mean(accuracies) if accuracies else math.nan,
        **dict(zip(names, np.mean(instances, axis=0), strict=True)),
    }


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_attribute_metrics_equal_brute_force(seed, images, attributes):
    generator = np.random.default_rng(seed)
    scores, labels = generator.random((images, attributes)), generator.integers(0, 2, (images, attributes))
    known = generator.random((images, attributes)) < 0.8
    ours = attribute_metrics(torch.tensor(scores), torch.tensor(labels), torch.tensor(known))
    for name, expected in attributes_by_hand(scores.tolist(), labels.tolist(), known.tolist()).items():
        assert ours[name] == pytest.approx(expected, abs=1e-6, nan_ok=True), name
    assert ours["known"] == known.sum()


def recognition_by_hand(scores, labels):
    """Accuracy of each group and each element, image by image."""
    groups, elements = {}, {}
    for group, where in SCHEMA:
        for row, truth in zip(scores, labels, strict=True):
            believed, true = row[where], truth[where]
            if group.kind == "choice":
                best = max(range(len(believed)), key=lambda place, values=believed: (values[place], -place))
                none = 1 - sum(believed) > believed[best]
                said = [int(place == best and not none) for place in range(len(believed))]
            else:
                said = [int(value > 0.5) for value in believed]
            if UNKNOWN not in true:
                groups.setdefault(group.name, []).append(said == true)
            for name, ours, theirs in zip(group.elements, said, true, strict=True):
                if theirs != UNKNOWN:
                    elements.setdefault(name, []).append(ours == theirs)
    return groups, elements


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_recognition_metrics_equal_brute_force(seed, images):
    generator = np.random.default_rng(seed)
    # Quarters: sums and ties are exact.
    scores = generator.integers(0, 5, (images, SCHEMA.size)) / 4
    scores[:, SCHEMA.slices["color"]] *= generator.choice([0.25, 1.0], (images, 1))
    labels = generator.choice([0, 1, UNKNOWN], (images, SCHEMA.size), p=[0.4, 0.4, 0.2]).astype(np.uint8)
    ours = recognition_metrics(torch.from_numpy(scores), torch.from_numpy(labels), SCHEMA)
    for name, counted in zip(
        ("groups", "elements"), recognition_by_hand(scores.tolist(), labels.tolist()), strict=True
    ):
        assert ours[name] == pytest.approx({key: np.mean(right) for key, right in counted.items()})
        expected = np.mean([np.mean(right) for right in counted.values()]) if counted else math.nan
        assert ours[f"{name[:-1]}_accuracy"] == pytest.approx(expected, nan_ok=True)


def test_what_scores_say_has_at_most_one_value_of_a_choice():
    scores = torch.tensor(
        [
            [0.5, 0.2, 0.3, 0.1, 0.9, 0.6],  # none of the colours leaves 0.4, more than any of them
            [0.6, 0.3, 0.4, 0.0, 0.5, 0.6],  # none leaves 0.3, less than green
            [0.0, 0.9, 0.9, 0.8, 0.0, 0.0],  # independent scores that add up to more than 1
        ]
    )
    assert recognize(scores, SCHEMA).tolist() == [[0, 0, 0, 0, 1, 1], [1, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 0]]


def test_what_nobody_labelled_is_left_out():
    labels = torch.tensor([[UNKNOWN, 1, 0, 0, 1, UNKNOWN]], dtype=torch.uint8)
    ours = recognition_metrics(torch.tensor([[0.9, 0.9, 0.0, 0.0, 0.0, 0.0]]), labels, SCHEMA)
    assert ours["groups"] == {"color": 1.0} and ours["group_accuracy"] == 1.0
    assert ours["elements"] == {"color=red": 1.0, "color=green": 1.0, "color=blue": 1.0, "bag=backpack": 0.0}
    assert ours["element_accuracy"] == 0.75
    nothing = recognition_metrics(torch.zeros(1, 6), torch.full((1, 6), UNKNOWN, dtype=torch.uint8), SCHEMA)
    assert nothing["groups"] == {} and math.isnan(nothing["group_accuracy"])


def test_par_distances_equal_the_loop_and_ignore_the_unknown():
    torch.manual_seed(0)
    attributes, scores = torch.randint(0, 2, (5, 7)).float(), torch.rand(6, 7)
    known = torch.randint(0, 2, (5, 7)).float()
    known[0] = 0
    distances = par_distances(attributes, known, scores)
    for q in range(5):
        for g in range(6):
            squares = [(attributes[q, n] - scores[g, n]).item() ** 2 for n in range(7) if known[q, n]]
            assert distances[q, g].item() == pytest.approx(math.sqrt(sum(squares)), abs=1e-5)
    changed = torch.where(known > 0, attributes, 1 - attributes)
    torch.testing.assert_close(par_distances(changed, known, scores), distances)
    assert (distances[0] == 0).all()


def test_likelihood_distances_equal_the_loop():
    torch.manual_seed(0)
    attributes, scores = torch.randint(0, 2, (5, 7)).float(), torch.rand(6, 7)
    scores[0, :3] = torch.tensor([0.0, 1.0, 1e-9])
    known = torch.randint(0, 2, (5, 7)).float()
    known[0], known[1] = 0, torch.rand(7)
    distances = par_distances(attributes, known, scores, "likelihood")
    for q in range(5):
        for g in range(6):
            kept = [min(max(score, 1e-3), 1 - 1e-3) for score in scores[g].tolist()]
            nats = [math.log(p if bit else 1 - p) for bit, p in zip(attributes[q].tolist(), kept, strict=True)]
            expected = -sum(k * term for k, term in zip(known[q].tolist(), nats, strict=True))
            assert distances[q, g].item() == pytest.approx(expected, abs=1e-5)
    assert (distances[0] == 0).all() and (distances >= 0).all()


def test_fusion_is_measured_and_the_weight_chosen_on_the_given_distances():
    relevant = torch.eye(4, dtype=torch.bool)
    par, embedding = 1 - torch.eye(4), torch.eye(4)
    fusion = fit_fusion(par * 3, embedding * 2, relevant, (0.1, 5.0))
    assert fusion == Fusion(par_weight=5.0, max_par=3.0, max_emb=2.0)
    assert fit_fusion(par, embedding, relevant, (0.1,), "likelihood") == Fusion(0.1, 1.0, 1.0, "likelihood")
    torch.testing.assert_close(fuse(par * 3, embedding * 2, fusion), 5 * par + embedding)
