"""Descriptions as queries: confidence as in the trainer, witnesses, and which models the client asks."""

import io
import json
from datetime import datetime

import numpy as np
import pytest
from fake_server import N
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from descry.client import AnyOf, InvalidRequest, ModelInfo, Not, Schema, SearchClient, Stated, index_folder
from descry.client.queries import combine, merge
from descry.client.search import MOST_QUERIES

seeds = st.integers(0, 2**32 - 1)


def drawn(generator: np.random.Generator, levels=(0, 0.3, 0.7, 1)) -> tuple[np.ndarray, np.ndarray]:
    """Attributes and known [N] as a schema encodes them."""
    known = generator.choice(levels, N).astype(np.float32)
    return (generator.random(N) < 0.5) * np.float32(1) * (known > 0), known


@pytest.mark.parametrize("name", ["asmr", "cerberus", "sal"])
def test_confidence_is_that_of_the_trainer(name):
    torch = pytest.importorskip("torch")
    from test_methods import build

    from descry.trainer.confidence import confident_distances
    from descry.trainer.extraction import Extracted
    from descry.trainer.retrieval import par_distances

    method, generator = build(name).eval(), np.random.default_rng(0)
    for _ in range(5):
        size = method.schema.size
        confidence = generator.choice([0, 0.3, 0.7, 1], size).astype(np.float32)
        attributes = (generator.random(size) < 0.5).astype(np.float32)
        rows = torch.from_numpy(generator.normal(size=(6, method.embedding_size)).astype(np.float32))
        gallery = Extracted(torch.nn.functional.normalize(rows), torch.rand(6, size), crops=None)
        stated = [torch.from_numpy(side)[None] for side in (attributes, confidence)]
        par, apart = confident_distances(method, *stated, gallery)
        query = merge([(attributes * (confidence > 0), confidence)])
        plain = [torch.from_numpy(side) for side in (query.plain_attributes, query.plain_known)]
        with torch.inference_mode():
            sought = combine([query], method.encode_attributes(*plain).numpy())
        torch.testing.assert_close(1 - torch.from_numpy(sought) @ gallery.embeddings.T, apart, atol=1e-6, rtol=1e-6)
        sides = [torch.from_numpy(side)[None] for side in (query.attributes, query.known)]
        torch.testing.assert_close(par_distances(*sides, gallery.scores), par, atol=1e-6, rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(1, 4))
def test_witnesses_count_alike(seed, count):
    """The merged query is the mean of the queries of the witnesses, and its PAR terms differ by a constant at most."""
    generator = np.random.default_rng(seed)
    witnesses = [drawn(generator) for _ in range(count)]
    merged, alone = merge(witnesses), [merge([one]) for one in witnesses]
    assert merged.shares.sum() == pytest.approx(1)
    weights = generator.normal(size=(2 * N, 3))

    def encode(query):
        return np.tanh(np.hstack([query.plain_attributes, query.plain_known]) @ weights)

    apart = combine(alone, np.concatenate([encode(query) for query in alone]))
    np.testing.assert_allclose(combine([merged], encode(merged))[0], apart.mean(axis=0), atol=1e-6)
    scores = generator.random((5, N))
    terms = merged.known * (merged.attributes - scores) ** 2
    mean = np.mean([query.known * (query.attributes - scores) ** 2 for query in alone], axis=0)
    assert np.ptp(mean - terms, axis=0).max() < 1e-6
    assert ((merged.attributes >= 0) & (merged.attributes <= 1)).all() and not merged.attributes[
        merged.known == 0
    ].any()


def test_a_single_certain_description_is_plain():
    generator = np.random.default_rng(0)
    attributes, known = drawn(generator, levels=(0, 1))
    query = merge([(attributes, known)])
    assert query.plain
    np.testing.assert_array_equal([query.attributes, query.known], [attributes, known])
    np.testing.assert_array_equal([query.plain_attributes[0], query.plain_known[0]], [attributes, known])
    assert not merge([(attributes, known)] * 2).plain and not merge([drawn(generator, levels=(0.5, 1))]).plain


def asked(fake, since: int = 0) -> list[str]:
    """The models of the requests, the same in a row once."""
    names = [model for model, _ in fake.requests[since:] if model != "gallery_info"]
    return [name for index, name in enumerate(names) if names[index - 1 : index] != [name]]


def test_which_models_a_search_asks(fake, client, folder):
    index_folder(client, folder, progress=io.StringIO())
    for statements, models in (
        ({"gender": "male", "upper_color": AnyOf("red", "blue")}, ["attribute_search"]),
        ({"gender": Not("male")}, ["attribute_search"]),
        ({"gender": Stated("male", 0.5)}, ["attribute_encoder", "gallery_search"]),
        ([{"gender": "male"}, {"gender": "female"}], ["attribute_encoder", "gallery_search"]),
    ):
        start = len(fake.requests)
        assert len(client.search(statements, k=3)) == 3
        assert asked(fake, start) == models
    photo = folder / "red.jpg"
    for statements, models in (
        (None, ["similar_search"]),
        ({"gender": Stated("male", 0.5)}, ["describe_image", "change_query", "gallery_search"]),
    ):
        start = len(fake.requests)
        assert client.similar(photo, statements, k=3).verdict == "uncalibrated"
        assert asked(fake, start) == models
    start = len(fake.requests)
    match = client.match(photo, {"upper_color": Stated("red", 0.5)})
    assert asked(fake, start) == ["describe_image", "attribute_encoder", "fuse_distances"]
    assert match.par_distance == pytest.approx(np.sqrt(match.terms.sum())) and match.agreement[0].agrees


def test_the_rows_of_a_merged_search(fake, client, folder):
    client.index(folder / "red.jpg", "1")
    client.search([{"gender": Stated("female", 0.25)}, {"gender": "male", "age": "60+"}])
    rows = [inputs for model, inputs in fake.requests if model == "attribute_encoder"]
    assert [row["INPUT__1"].tolist() for row in rows] == [[1] + [0] * 7, [0] * 8, [1, 0, 0, 0, 0, 0, 1, 1]]
    (search,) = [inputs for model, inputs in fake.requests if model == "gallery_search"]
    np.testing.assert_allclose(search["known"], [0.625, 0, 0, 0, 0, 0, 0.5, 0.5])
    np.testing.assert_allclose(search["attributes"], [0.2, 0, 0, 0, 0, 0, 0, 1])


def test_many_descriptions_in_one_request(fake, client, folder):
    index_folder(client, folder, progress=io.StringIO())
    descriptions = [{"upper_color": color} for color in ("red", "blue", "green")]
    start = len(fake.requests)
    rankings = client.search_many(descriptions, k=2)
    assert asked(fake, start) == ["attribute_encoder", "gallery_search"]
    for description, ranking in zip(descriptions, rankings, strict=True):
        assert [hit.id for hit in ranking] == [hit.id for hit in client.search(description, k=2)]
        assert ranking[0].agreement[0].stated == description["upper_color"]
    for wrong in ([], descriptions * 400):
        with pytest.raises(InvalidRequest, match=f"1 to {MOST_QUERIES} descriptions, not {len(wrong)}"):
            client.search_many(wrong)
    with pytest.raises(InvalidRequest, match="state at least one attribute"):
        client.search_many([{"gender": "male"}, {}])
    with pytest.raises(InvalidRequest, match="state at least one attribute"):
        client.search([{"gender": "male"}, {"gender": "unknown"}])
    with pytest.raises(InvalidRequest, match="state at least one attribute"):
        client.search([])


def test_what_is_kept_and_how_it_is_ranked(fake, client, folder):
    fake.calibration = {"match": {"threshold": 0.5}}
    client.index(folder / "red.jpg", "1", {"camera": "1"})
    client.search(
        {"gender": "male"},
        cameras=["1"],
        tracks=["a"],
        start=datetime(2024, 5, 1),
        end="2024-05-02",
        metadata={"weather": ["rain", 1, True]},
        by_track="mean",
        threshold=0.5,
    )
    inputs = fake.requests[-1][1]
    assert json.loads(inputs["filter"][0]) == {
        "camera": ["1"],
        "track": ["a"],
        "time": {"from": "2024-05-01T00:00:00", "to": "2024-05-02"},
        "metadata": {"weather": ["rain", 1, True]},
    }
    assert json.loads(inputs["options"][0]) == {"rank": "tracks", "by": "mean"} and inputs["threshold"].tolist() == [
        0.5
    ]
    client.search({"gender": "male"})
    assert not {"options", "threshold"} & set(fake.requests[-1][1])
    for wrong, message in (
        ({"threshold": 2}, "from 0 to 1, not 2"),
        ({"by_track": "worst"}, "best, mean, not 'worst'"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            client.search({"gender": "male"}, **wrong)


def test_without_a_calibration_there_is_no_probability(client, folder):
    client.index(folder / "red.jpg", "1")
    ranking = client.search({"upper_color": "red"})
    assert ranking.verdict == "uncalibrated" and ranking.probability is None and ranking[0].probability is None
    assert ranking[0].agreement[0].probability == pytest.approx(float(ranking[0].scores[1]))
    with pytest.raises(InvalidRequest, match="not calibrated"):
        client.search({"upper_color": "red"}, threshold=0.5)


def test_probabilities_are_calibrated(fake, folder):
    fake.calibration = {"temperatures": {"gender=female": 2.0, "upper_color=red": 0.5}, "match": {"threshold": 0.3}}
    with SearchClient(fake.url, timeout=5) as client:
        client.index(folder / "red.jpg", "1")
        ranking = client.search({"gender": "female", "upper_color": "blue"})
        assert ranking.verdict == "match" and ranking.probability == ranking[0].probability == pytest.approx(0.9)
        gender, color = ranking[0].agreement
        assert gender.probability == pytest.approx(expit(logit(0.9) / 2), abs=1e-5)
        assert color.probability == pytest.approx(float(ranking[0].scores[3]))
        described = {one.group: one for one in client.describe(folder / "red.jpg").predictions}
        assert described["gender"].probability == pytest.approx(gender.probability)


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_temperatures_are_those_of_the_trainer(seed):
    calibration = pytest.importorskip("descry.trainer.calibration")
    generator = np.random.default_rng(seed)
    schema = Schema.from_json({"name": "", "groups": [
        {"name": f"{index}", "kind": "binary", "part": "head", "values": ["no", "yes"]} for index in range(N)
    ]})  # fmt: skip
    temperatures = generator.uniform(0.2, 5, N).round(int(generator.integers(0, 5)))
    temperatures = np.maximum(temperatures, 0.2)
    content = {"temperatures": dict(zip(schema.elements, temperatures.tolist(), strict=True))}
    model = ModelInfo(schema, "", "", 1, 1, 1, "euclidean", 4, (1, 1), content)
    scores = generator.random((7, N)).round(int(generator.integers(1, 9))).astype(np.float32)
    theirs = calibration.AttributeCalibration(temperatures, [None] * N).apply("temperature", scores)
    np.testing.assert_allclose(model.calibrated(scores), theirs, atol=1e-6)
