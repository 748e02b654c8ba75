"""What one search is: partly known statements, cancellation, and the probability that a hit matches."""

from dataclasses import replace

import numpy as np
import pytest
from brute_force import distance, filled, make_query, make_rows
from gallery_row import Cancelled
from hypothesis import given, settings
from hypothesis import strategies as st
from match_law import FEATURES, MatchLaw, stated_groups
from par_distance import PAR_DISTANCES, ROUND_OFF
from ranking import QUERIES_A_PASS
from served_model import ModelError
from test_gallery import ATTRIBUTES, EMBEDDING, LIKELIHOOD, MODEL

LAW = {
    "weights": dict(zip(FEATURES, (-4.2, -2.3, 0.1, 0.6, -0.4), strict=True)),
    "intercept": 2.5,
    "threshold": 0.6,
}
CALIBRATED = replace(MODEL, calibration={"match": LAW})
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(seeds, st.booleans(), st.sampled_from([0, 2, 4]), st.integers(1, 30))
def test_partly_known_statements_are_ranked_as_by_hand(tmp_path_factory, seed, likely, levels, k):
    model, generator = LIKELIHOOD if likely else MODEL, np.random.default_rng(seed)
    rows = make_rows(generator, [{}] * 40, levels)
    query = make_query(generator, k, levels)
    (hits,) = filled(tmp_path_factory.mktemp("partly"), rows, model).search([query])
    best = sorted((distance(row, query, model), row.id) for row in rows)[:k]
    assert list(zip(hits.distances, hits.ids, strict=True)) == best


@settings(max_examples=100, deadline=None)
@given(seeds, st.sampled_from(sorted(PAR_DISTANCES)), st.integers(1, 60), st.sampled_from([1.0, 1e-3, 1e-6]))
def test_float32_sums_stay_within_their_bounds(seed, kind, count, scale):
    par, generator = PAR_DISTANCES[kind], np.random.default_rng(seed)
    attributes, known = (generator.random((3, count)).astype(np.float32) for _ in range(2))
    known *= (generator.random(count) < 0.7) * np.float32(scale)
    scores = np.round(generator.random((50, count)), int(generator.integers(0, 9))).astype(np.float32)
    scores[::5] = attributes[0]
    sums = par.query_weights(attributes, known) @ par.columns(scores).T + par.offset(attributes, known)
    for row, (bits, mask) in enumerate(zip(attributes, known, strict=True)):
        exact = par.terms(bits, mask, scores).sum(axis=1)
        assert (np.abs(sums[row] - exact) <= par.sum_error(mask)).all()
        assert par.sum_error(mask) < 100 * count * ROUND_OFF * max(1, mask.sum())


def test_the_terms_of_a_partly_known_statement_add_up(tmp_path):
    generator = np.random.default_rng(0)
    query = make_query(generator, 30)
    rows = make_rows(generator, [{}] * 30)
    for name, model in (("euclidean", MODEL), ("likelihood", LIKELIHOOD)):
        folder = tmp_path / name
        (hits,) = filled(folder, rows, model).search([query])
        sums = hits.terms.sum(1)
        par = np.sqrt(sums) if model is MODEL else sums
        np.testing.assert_allclose(hits.par_distances, par / model.max_par, rtol=1e-5)
        assert not hits.terms[:, query.known == 0].any()


def test_a_cancelled_search_ends_at_the_next_pass(tmp_path):
    generator = np.random.default_rng(0)
    ranking = filled(tmp_path, make_rows(generator, [{}] * 5))
    asked = []

    def leaves_after_two_passes() -> bool:
        asked.append(1)
        return len(asked) > 2

    given_up = [make_query(generator, 2, cancelled=leaves_after_two_passes) for _ in range(5 * QUERIES_A_PASS)]
    others = [make_query(generator, 2) for _ in range(8)]
    answers = ranking.search([*given_up, *others])
    assert [isinstance(answer, Cancelled) for answer in answers] == [False] * 32 + [True] * 48 + [False] * 8
    assert len(asked) == 5
    assert [answer.ids for answer in answers[-8:]] == [hits.ids for hits in ranking.search(others)]


def test_the_probability_is_that_of_the_trainer(tmp_path):
    trainer = pytest.importorskip("descry.trainer.match_probability")
    assert trainer.FEATURES == FEATURES
    theirs = trainer.MatchProbability(tuple(LAW["weights"][name] for name in FEATURES), LAW["intercept"])
    generator = np.random.default_rng(0)
    known = np.array([1, 0, 1, 1, 0], np.float32)
    for by in (None, "best"):
        query = make_query(generator, 50, known=known, by=by)
        (hits,) = filled(tmp_path / f"{by}", make_rows(generator, [{}] * 50), CALIBRATED).search([query])
        distances = hits.par_distances * MODEL.max_par / 3, hits.embedding_distances * MODEL.max_emb
        features = np.stack([*distances, *(np.full(50, value) for value in (3, np.log(3), np.log(50)))], axis=1)
        np.testing.assert_allclose(hits.probabilities, theirs(features.astype(np.float64)), atol=1e-6)


def test_only_images_that_pass_the_filter_count(tmp_path):
    from filters import read_filter

    generator = np.random.default_rng(0)
    rows = make_rows(generator, [{"camera": str(number % 2)} for number in range(50)])
    query = make_query(generator, 50, filter=read_filter('{"camera": ["1"]}'))
    (filtered,) = filled(tmp_path / "all", rows, CALIBRATED).search([query])
    alone = filled(tmp_path / "half", [row for row in rows if '"1"' in row.metadata], CALIBRATED)
    (expected,) = alone.search([replace(query, filter=read_filter("{}"))])
    assert len(expected.ids) == 25
    np.testing.assert_array_equal(filtered.probabilities, expected.probabilities)


def test_the_first_hit_decides_the_verdict(tmp_path):
    generator = np.random.default_rng(0)
    ranking = filled(tmp_path, make_rows(generator, [{}] * 20), CALIBRATED)
    query = make_query(generator, 5)
    first = ranking.search([query])[0].probabilities[0]
    below, above = np.nextafter(first, 0, dtype=np.float32), np.nextafter(first, 1, dtype=np.float32)
    asked = [(-1.0, first >= 0.6), (0.0, True), (float(below), True), (float(above), False), (1.0, False)]
    for threshold, matches in asked:
        (hits,) = ranking.search([replace(query, threshold=threshold)])
        assert hits.verdict == ("match" if matches else "no match") and len(hits.ids) == 5


def test_without_calibration_or_statement_there_is_no_probability(tmp_path):
    generator = np.random.default_rng(0)
    nothing = np.zeros(ATTRIBUTES, np.float32)
    rows = make_rows(generator, [{}] * 3)
    for name, model, query in (
        ("plain", MODEL, make_query(generator, 5)),
        ("nothing stated", CALIBRATED, make_query(generator, 5, known=nothing)),
    ):
        (hits,) = filled(tmp_path / name, rows, model).search([query])
        assert hits.verdict == "uncalibrated" and np.isnan(hits.probabilities).all() and len(hits.ids) == 3
    (empty,) = filled(tmp_path / "empty", [], CALIBRATED).search([make_query(generator, 5)])
    assert empty.verdict == "no match" and not len(empty.probabilities)


def test_a_group_counts_by_its_surest_element():
    known = np.array([0.5, 0.2, 0.7, 0, 0, 0, 1], np.float32)
    assert stated_groups(known, [1, 2, 3, 1]) == pytest.approx(0.5 + 0.7 + 0 + 1)


def test_extreme_distances_have_probabilities():
    law = MatchLaw.of(CALIBRATED)
    far = np.array([0.0, 1.0, 1e3, 1e30])
    probabilities = law.probabilities(far, far, 1, 10**9)
    assert ((probabilities >= 0) & (probabilities <= 1)).all() and (np.diff(probabilities) <= 0).all()


def test_a_calibration_that_lacks_a_weight_is_refused():
    broken = replace(MODEL, calibration={"match": LAW | {"weights": {"par_per_group": 1}}})
    with pytest.raises(ModelError, match="without 'embedding_distance': calibrate and export it again"):
        MatchLaw.of(broken)


def test_unknown_attributes_move_nothing(tmp_path):
    """Whatever stands where nothing is known: distances, terms, probabilities and verdict are the same to the bit."""
    generator = np.random.default_rng(0)
    ranking = filled(tmp_path, make_rows(generator, [{}] * 40), CALIBRATED)
    for _ in range(20):
        query = make_query(generator, 40)
        noise = generator.random(ATTRIBUTES).astype(np.float32)
        other = replace(query, attributes=np.where(query.known > 0, query.attributes, noise))
        one, two = ranking.search([query, other])
        assert one.ids == two.ids and one.verdict == two.verdict
        for name in ("distances", "par_distances", "embedding_distances", "terms", "probabilities"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert query.embedding.shape == (EMBEDDING,)
