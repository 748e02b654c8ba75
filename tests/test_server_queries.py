"""Queries through the real server: statements, confidence, filters, tracks, probabilities, batches, cancellation."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
import torch
from test_server import ask, modules, outcome, photo, texts  # noqa: F401
from tiny_models import ATTRIBUTES, EMBEDDING, FUSION
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from descry.client import AnyOf, InvalidRequest, Not, Ranking, SearchClient, Stated
from descry.client.serve import TritonServer

pytestmark = pytest.mark.server
HERE = "test-queries"  # the gallery is shared: these tests look only at their own camera
START = datetime(2024, 5, 1, tzinfo=timezone.utc)
ROWS = 60
LAW = FUSION["calibration"]["match"]


@pytest.fixture(scope="module")
def raw(server: TritonServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def search(server: TritonServer) -> Iterator[SearchClient]:
    with SearchClient(server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def rows(raw) -> dict[str, dict]:
    """Sixty rows of this camera: three tracks and rows without, one a minute, with scores and embeddings."""
    generator = np.random.default_rng(0)
    written = {}
    for number in range(ROWS):
        embedding = generator.normal(size=EMBEDDING).astype(np.float32)
        metadata = {
            "camera": HERE,
            "time": (START + number * timedelta(minutes=1)).isoformat(),
            "weather": ["rain", True, 1][number % 3],
        }
        if number % 4:
            metadata["track"] = f"queries-{number % 4}"
        row = {
            "metadata": metadata,
            "embedding": embedding / np.linalg.norm(embedding),
            "scores": generator.random(ATTRIBUTES).astype(np.float32),
        }
        written[f"queries/{number:02}"] = row
        vectors = {name: row[name][None] for name in ("embedding", "scores")}
        status = ask(
            raw,
            "gallery_write",
            id=texts(f"queries/{number:02}"),
            metadata=texts(json.dumps(metadata)),
            operation=texts("put"),
            **vectors,
        )
        assert status["status"].item() == b"added"
    return written


def distances(rows: dict[str, dict], query: np.ndarray, attributes, known, weight=FUSION["par_weight"]) -> dict:
    """The fused distance of every row."""
    found = {}
    for id, row in rows.items():
        par = np.sqrt((known.astype(np.float64) * (attributes - row["scores"].astype(np.float64)) ** 2).sum())
        apart = 1 - row["embedding"].astype(np.float64) @ query
        found[id] = weight * par / FUSION["max_par"] + apart / FUSION["max_emb"]
    return found


def in_order(found: dict[str, float], k: int) -> list[str]:
    return sorted(found, key=found.__getitem__)[:k]


def encoded(modules, attributes, known) -> np.ndarray:  # noqa: F811
    with torch.inference_mode():
        return modules["attribute_encoder"](torch.from_numpy(attributes), torch.from_numpy(known)).numpy()


def ids(ranking: Ranking) -> list[str]:
    return [hit.id for hit in ranking]


@pytest.mark.parametrize(
    "statements",
    [
        {"upper_color": AnyOf("red", "white"), "hat": "no"},
        {"upper_color": Not("black"), "accessory": Not("bag"), "gender": Not("male")},
        {"accessory": "bag+glasses", "upper_color": "none"},
    ],
)
def test_alternatives_and_denials_rank_as_their_elements(search, rows, modules, statements):  # noqa: F811
    attributes, known = search.schema.encode(statements)
    expected = distances(rows, encoded(modules, attributes[None], known[None])[0], attributes, known)
    ranking = search.search(statements, 20, cameras=[HERE])
    assert ids(ranking) == in_order(expected, 20)
    np.testing.assert_allclose([hit.distance for hit in ranking], [expected[hit.id] for hit in ranking], atol=1e-5)
    for hit in ranking:
        assert sum(one.term for one in hit.agreement) == pytest.approx(float(hit.terms.sum()), abs=1e-5)


def test_confidence_and_witnesses_rank_by_the_stated_rule(search, rows, modules):  # noqa: F811
    witnesses = [{"gender": "female", "upper_color": Stated("red", 0.5)}, {"upper_color": "white", "hat": "no"}]
    plain = [
        (0.25, {"gender": "female", "upper_color": "red"}),
        (0.25, {"gender": "female"}),
        (0.5, {"upper_color": "white", "hat": "no"}),
    ]
    sides = [search.schema.encode(statements) for _, statements in plain]
    sought = sum(
        share * encoded(modules, attributes[None], known[None])[0]
        for (share, _), (attributes, known) in zip(plain, sides, strict=True)
    )
    known = np.array([0.5, 0.5, 0.75, 0.75, 0.75, 0, 0])
    attributes = np.array([1, 0, 0, 1 / 3, 2 / 3, 0, 0])
    expected = distances(rows, sought, attributes, known)
    ranking = search.search(witnesses, 20, cameras=[HERE])
    assert ids(ranking) == in_order(expected, 20)
    np.testing.assert_allclose([hit.distance for hit in ranking], [expected[hit.id] for hit in ranking], atol=1e-5)
    assert ids(search.search(list(reversed(witnesses)), 20, cameras=[HERE])) == ids(ranking)
    same = search.search([witnesses[1]] * 3, 20, cameras=[HERE])
    alone = search.search(witnesses[1], 20, cameras=[HERE])
    assert ids(same) == ids(alone)
    np.testing.assert_allclose([hit.distance for hit in same], [hit.distance for hit in alone], atol=1e-5)


def test_certain_and_unknown_are_the_ends_of_confidence(search, rows):
    certain = search.search({"gender": "female", "hat": "no"}, 10, cameras=[HERE])
    nearly = search.search({"gender": "female", "hat": Stated("no", 1 - 1e-6)}, 10, cameras=[HERE])
    without = search.search({"gender": "female"}, 10, cameras=[HERE])
    hardly = search.search({"gender": "female", "hat": Stated("no", 1e-6)}, 10, cameras=[HERE])
    for one, other in ((certain, nearly), (without, hardly)):
        np.testing.assert_allclose([hit.distance for hit in one], [hit.distance for hit in other], atol=1e-3)


def test_unknown_never_moves_a_score(raw, rows):
    """64 descriptions; whatever stands where nothing is known, every output is the same to the bit."""
    generator = np.random.default_rng(1)
    known = (generator.random((64, ATTRIBUTES)) < 0.5).astype(np.float32)
    attributes = (generator.random((64, ATTRIBUTES)) < 0.5).astype(np.float32)
    noise = np.where(known > 0, attributes, generator.random((64, ATTRIBUTES)).astype(np.float32))
    limits = {
        "par_weight": np.full((64, 1), 0.7, np.float32),
        "k": np.full((64, 1), 15, np.int32),
        "filter": texts(*[json.dumps({"camera": [HERE]})] * 64),
    }
    one = ask(raw, "attribute_search", attributes=attributes, known=known, **limits)
    other = ask(raw, "attribute_search", attributes=noise, known=known, **limits)
    assert set(one) == set(other) and len(one) == 10
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], name)
    assert not one["terms"][np.broadcast_to(known[:, None] == 0, one["terms"].shape)].any()


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"tracks": ["queries-1", "queries-3"]}, lambda number: number % 4 in (1, 3)),
        ({"tracks": [""]}, lambda number: number % 4 == 0),
        (
            {"start": START + timedelta(minutes=10), "end": "2024-05-01T02:20:00+02:00"},
            lambda number: 10 <= number < 20,
        ),
        ({"metadata": {"weather": ["rain"]}}, lambda number: number % 3 == 0),
        ({"metadata": {"weather": [True]}}, lambda number: number % 3 == 1),
        ({"metadata": {"weather": [1.0]}, "tracks": ["queries-1"]}, lambda number: number % 12 == 5),
        ({"metadata": {"absent": ["x"]}}, lambda number: False),
    ],
)
@pytest.mark.parametrize("k", [3, 60])
def test_filters_leave_exactly_what_they_name(search, rows, limits, kept, k):
    everything = search.search({"gender": "female"}, ROWS, cameras=[HERE])
    expected = [hit.id for hit in everything if kept(int(hit.id.removeprefix("queries/")))]
    assert ids(search.search({"gender": "female"}, k, cameras=[HERE], **limits)) == expected[:k]


@pytest.mark.parametrize("by", ["best", "mean"])
def test_tracks_are_ranked_with_their_images(search, rows, by):
    everything = search.search({"gender": "female"}, ROWS, cameras=[HERE])
    owned: dict[str, list] = {}
    for hit in everything:
        owned.setdefault(hit.metadata.get("track") or hit.id, []).append(hit)
    far = {
        hits[0].id: float(np.mean([hit.distance for hit in hits])) if by == "mean" else hits[0].distance
        for hits in owned.values()
    }
    ranking = search.search({"gender": "female"}, 10, cameras=[HERE], by_track=by)
    assert ids(ranking) == in_order(far, 10)
    np.testing.assert_allclose([hit.distance for hit in ranking], [far[hit.id] for hit in ranking], atol=1e-6)
    frames = {hits[0].id: [hit.id for hit in hits] for hits in owned.values()}
    assert [[frame.id for frame in hit.frames] for hit in ranking] == [frames[hit.id] for hit in ranking]
    assert all(hit.frames[0].id == hit.id for hit in ranking)
    assert not everything[0].frames


def test_the_probability_is_the_law_of_the_export(search, rows):
    ranking = search.search({"gender": "female", "hat": Stated("no", 0.5)}, 20, cameras=[HERE], tracks=["queries-1"])
    weights = LAW["weights"]
    for hit in ranking:
        logit = LAW["intercept"] + weights["par_per_group"] * hit.par_distance * FUSION["max_par"] / 1.5
        logit += weights["embedding_distance"] * hit.embedding_distance * FUSION["max_emb"]
        logit += weights["stated"] * 1.5 + weights["log_stated"] * np.log(1.5) + weights["log_images"] * np.log(15)
        assert hit.probability == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
    assert ranking.verdict == "match" and ranking.probability == ranking[0].probability
    above, below = ranking.probability + 1e-4, ranking.probability - 1e-4
    for threshold, verdict in ((above, "no match"), (below, "match"), (0.0, "match"), (1.0, "no match")):
        again = search.search({"gender": "female"}, 5, cameras=[HERE], threshold=threshold)
        if threshold in (0.0, 1.0):
            assert again.verdict == verdict
    said = {"gender": "female", "hat": Stated("no", 0.5)}
    for threshold, verdict in ((above, "no match"), (below, "match")):
        again = search.search(said, 20, cameras=[HERE], tracks=["queries-1"], threshold=threshold)
        assert again.verdict == verdict and ids(again) == ids(ranking)
    nobody = search.search({"gender": "female"}, 5, cameras=["nowhere"])
    assert nobody == [] and nobody.verdict == "no match"


def test_a_photo_with_changes_is_ranked_with_all_of_it(search, rows, modules):  # noqa: F811
    image = photo(1)
    seen = search.describe(image)
    said = {"gender": Stated("male", 0.5)}
    attributes, known = search.schema.encode(said)
    with torch.inference_mode():
        inputs = (torch.tensor(seen.embedding)[None], torch.from_numpy(attributes)[None])
        sure = modules["change_query"](*inputs, torch.ceil(torch.from_numpy(known))[None])[0].numpy()
    expected = distances(rows, 0.5 * sure + 0.5 * seen.embedding, attributes, known)
    ranking = search.similar(image, said, 10, cameras=[HERE])
    assert ids(ranking) == in_order(expected, 10)
    assert ranking.verdict == "uncalibrated" and ranking.probability is None
    tracks = search.similar(image, {"gender": Not("female")}, 10, cameras=[HERE], by_track="best")
    assert tracks[0].id == search.similar(image, {"gender": "male"}, 1, cameras=[HERE])[0].id and tracks[0].frames
    assert (
        search.similar(image, k=3, cameras=[HERE], start=START, end=START + timedelta(minutes=1))[0].id == "queries/00"
    )


def test_match_takes_the_same_statements(search, rows, modules):  # noqa: F811
    image = photo(2)
    seen = search.describe(image)
    said = [{"gender": Stated("male", 0.5)}, {"gender": "male", "upper_color": AnyOf("red", "black")}]
    match = search.match(image, said)
    known, attributes = np.array([0.75, 0, 0, 0, 0.5, 0, 0]), np.zeros(7)
    np.testing.assert_allclose(match.terms, known * (attributes - seen.scores) ** 2, atol=1e-5)
    assert match.par_distance == pytest.approx(np.sqrt(match.terms.sum()) / FUSION["max_par"], abs=1e-5)
    weighted = FUSION["par_weight"] * match.par_distance + match.embedding_distance
    assert match.distance == pytest.approx(weighted, abs=1e-5)
    assert [one.stated for one in match.agreement] == ["male@0.5 / male", "red|black"]


def test_a_thousand_queries_in_one_call(search, rows):
    generator = np.random.default_rng(2)
    groups = {group.name: group.choices for group in search.schema.groups}
    descriptions = [
        {
            name: str(generator.choice(values))
            for name, values in groups.items()
            if generator.random() < 0.5 or name == "hat"
        }
        for _ in range(1000)
    ]
    descriptions[500] = [descriptions[500], {"gender": Stated("male", 0.3)}]
    rankings = search.search_many(descriptions, k=5, cameras=[HERE])
    assert len(rankings) == 1000 and all(len(ranking) == 5 for ranking in rankings)
    for number in (0, 17, 500, 999):
        alone = search.search(descriptions[number], 5, cameras=[HERE])
        assert ids(rankings[number]) == ids(alone) and rankings[number].verdict == alone.verdict
        np.testing.assert_allclose(rankings[number][0].distance, alone[0].distance, atol=1e-5)
    with pytest.raises(InvalidRequest, match="exceed 100000 hits a request"):
        search.search_many(descriptions, k=101)
    with pytest.raises(InvalidRequest, match="exceed 10000 hits a request"):
        search.search_many(descriptions, k=11, by_track="best")


def test_a_batch_that_is_given_up_is_not_ranked_to_its_end(server, raw, search, rows):
    """Cancelled, or past its deadline, while it is ranked: the model says so, and answers the next query."""
    generator = np.random.default_rng(3)
    attributes = (generator.random((1000, ATTRIBUTES)) < 0.5).astype(np.float32)
    values = {
        "query": generator.normal(size=(1000, EMBEDDING)).astype(np.float32),
        "attributes": attributes,
        "known": np.ones_like(attributes),
        "par_weight": np.full((1000, 1), -1, np.float32),
        "k": np.full((1000, 1), 50, np.int32),
        "filter": texts(*["{}"] * 1000),
    }
    inputs = []
    for name, array in values.items():
        inputs.append(triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)

    def given_up() -> int:
        return server.log.read_text().count("the caller no longer waits for this search")

    # How long a request is on its way is not known, so it is given up a little later each time.
    for way in ("cancel", "deadline"):
        before, attempt = given_up(), 0
        while given_up() == before and attempt < 40:
            seconds = 0.02 * (attempt := attempt + 1)
            if way == "cancel":
                call = raw.async_infer("gallery_search", inputs, lambda result, error: None)
                time.sleep(seconds)
                call.cancel()
            else:
                with suppress(InferenceServerException):
                    raw.infer("gallery_search", inputs, client_timeout=seconds)
            assert len(search.search({"gender": "male"}, 3, cameras=[HERE])) == 3
        assert given_up() > before, way


WRONG = {
    "attributes": np.zeros((1, ATTRIBUTES), np.float32),
    "known": np.ones((1, ATTRIBUTES), np.float32),
    "par_weight": np.zeros((1, 1), np.float32),
    "k": np.ones((1, 1), np.int32),
    "filter": texts("{}"),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filter": texts('{"city": []}')}, "valid: camera, track, time, metadata"),
        ({"filter": texts('{"time": {"from": "noon"}}')}, "'from' must be ISO 8601"),
        ({"filter": texts('{"metadata": {"a": [{}]}}')}, "list of texts, numbers and booleans"),
        ({"options": texts('{"rank": "people"}')}, "must be one of images, tracks"),
        ({"options": texts("[")}, "options is not JSON"),
        ({"options": texts(b"\xff")}, "options is not UTF-8"),
        ({"threshold": np.full((1, 1), np.nan, np.float32)}, "threshold must be a probability"),
        ({"threshold": np.full((1, 1), 1.5, np.float32)}, "threshold must be a probability"),
        ({"known": np.full((1, ATTRIBUTES), 1.5, np.float32)}, "known must lie in 0..1"),
        ({"k": np.full((1, 1), 10_001, np.int32), "options": texts('{"rank": "tracks"}')}, "exceed 10000 hits"),
    ],
)
def test_a_wrong_query_is_refused_in_words(raw, change, message):
    refusal = outcome(raw, "attribute_search", WRONG | change)
    assert isinstance(refusal, str) and refusal.startswith("INVALID_ARGUMENT ") and message in refusal
    assert "Traceback" not in refusal and ".py" not in refusal
