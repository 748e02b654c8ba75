"""The gallery without a server: exact ranking, durability, and what is refused."""

import json
import math
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filters import Filter
from gallery import Gallery, GalleryError
from gallery_row import Delete, InvalidRequest, Put, checked_put
from ranking import Query, Ranking
from served_model import ModelError, ServedModel

EMBEDDING, ATTRIBUTES = 8, 5
SCHEMA = {"groups": [{"name": f"a{index}", "kind": "binary", "values": ["no", "yes"]} for index in range(ATTRIBUTES)]}
MODEL = ServedModel(SCHEMA, "digest-one", "tiny", 0.7, 1.9, 1.6, "euclidean", EMBEDDING, (32, 16))
LIKELIHOOD = replace(MODEL, par_distance="likelihood")
MODULES = Path(__file__).parents[1] / "model_repository" / "gallery_search" / "1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gallery.sqlite"


def random_rows(generator: np.random.Generator, count: int, levels: int = 0) -> list[Put]:
    """Rows with random vectors; with `levels` their values are so coarse that distances tie often."""
    embeddings = generator.normal(size=(count, EMBEDDING))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = generator.random((count, ATTRIBUTES))
    if levels:
        embeddings, scores = np.round(embeddings * levels) / levels, np.round(scores * levels) / levels
    ids = [f"crop-{number:05}" for number in generator.permutation(count)]
    return [
        checked_put(MODEL, id, json.dumps({"camera": str(index % 3)}), *(v.astype(np.float32) for v in vectors))
        for index, (id, *vectors) in enumerate(zip(ids, embeddings, scores, strict=True))
    ]


def random_query(generator: np.random.Generator, k: int, levels: int = 0, **changed) -> Query:
    embedding = generator.normal(size=EMBEDDING)
    embedding /= np.linalg.norm(embedding)
    if levels:
        embedding = np.round(embedding * levels) / levels
    known = (generator.random(ATTRIBUTES) < 0.6).astype(np.float32)
    attributes = (generator.random(ATTRIBUTES) < 0.5).astype(np.float32)
    values = {"embedding": embedding.astype(np.float32), "attributes": attributes, "known": known, "par_weight": 0.5}
    return Query(**(values | {"k": k} | changed))


def brute_force(rows: list[Put], query: Query, model: ServedModel = MODEL) -> list[tuple[float, str]]:
    """(distance, id) of the k best rows, row by row in Python floats."""
    weight = MODEL.par_weight if query.par_weight < 0 else query.par_weight
    ranked = []
    for row in rows:
        if query.filter.cameras is not None and json.loads(row.metadata)["camera"] not in query.filter.cameras:
            continue
        stated = zip(query.attributes.tolist(), row.scores.tolist(), query.known.tolist(), strict=True)
        if model is LIKELIHOOD:
            chances = ((p if b else 1 - p) for b, p, known in stated if known)
            par = math.fsum(-math.log(min(max(chance, 1e-3), 1 - 1e-3)) for chance in chances) / MODEL.max_par
        else:
            par = math.sqrt(math.fsum((b - p) ** 2 for b, p, known in stated if known)) / MODEL.max_par
        cosine = math.fsum(q * g for q, g in zip(query.embedding.tolist(), row.embedding.tolist(), strict=True))
        ranked.append((float(np.float32(weight * par + (1 - cosine) / MODEL.max_emb)), row.id))
    return sorted(ranked)[: query.k]


def found(ranking: Ranking, query: Query) -> list[tuple[float, str]]:
    (hits,) = ranking.search([query])
    return list(zip(hits.distances.tolist(), hits.ids, strict=True))


def filled(path: Path, rows: list[Put], model: ServedModel = MODEL) -> Ranking:
    gallery = Gallery(path, model)
    gallery.write(rows)
    return Ranking(gallery, model)


@pytest.mark.parametrize("model", [MODEL, LIKELIHOOD], ids=lambda model: model.par_distance)
@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize("k", [1, 7, 200, 10_000])
def test_search_equals_brute_force_with_ties_by_id(path, k, levels, model):
    generator = np.random.default_rng(k + levels)
    rows = random_rows(generator, 500, levels)
    ranking = filled(path, rows, model)
    for cameras in (None, frozenset("02"), frozenset(["elsewhere"])):
        for weight in (0.0, 0.5, -1.0):
            query = random_query(generator, k, levels, filter=Filter(cameras), par_weight=weight)
            assert found(ranking, query) == brute_force(rows, query, model)


def test_equal_rows_are_cut_by_id(path):
    rows = [
        Put(f"{9 - n}", (None,) * 4, "{}", np.eye(EMBEDDING, dtype=np.float32)[0], np.full(5, 0.5, np.float32))
        for n in range(10)
    ]
    ranking = filled(path, rows)
    query = random_query(np.random.default_rng(0), 4)
    assert [id for _, id in found(ranking, query)] == ["0", "1", "2", "3"]


def test_scores_that_differ_by_rounding_are_still_ordered(path):
    """A PAR distance near 0 comes out of float32 cancellation as noise."""
    generator = np.random.default_rng(1)
    stated = np.ones(ATTRIBUTES, np.float32)
    rows = random_rows(generator, 300)
    rows = [Put(row.id, row.texts, row.metadata, row.embedding, 1 - row.scores * np.float32(1e-5)) for row in rows]
    query = random_query(generator, 20, attributes=stated, known=stated, embedding=np.zeros(EMBEDDING, np.float32))
    assert found(filled(path, rows), query) == brute_force(rows, query)


def test_summands_terms_and_scores_explain_the_distance(path):
    generator = np.random.default_rng(2)
    rows = random_rows(generator, 50)
    query = random_query(generator, 50)
    (hits,) = filled(path, rows).search([query])
    by_id = {row.id: row for row in rows}
    np.testing.assert_array_equal(hits.scores, [by_id[id].scores for id in hits.ids])
    np.testing.assert_allclose(hits.terms, (query.attributes - hits.scores) ** 2 * query.known, rtol=1e-6)
    np.testing.assert_allclose(hits.par_distances, np.sqrt(hits.terms.sum(1)) / MODEL.max_par, rtol=1e-6)
    np.testing.assert_allclose(
        hits.distances, query.par_weight * hits.par_distances + hits.embedding_distances, rtol=1e-6
    )
    assert hits.metadata == [by_id[id].metadata for id in hits.ids]


def test_the_terms_of_the_likelihood_are_nats(path):
    generator = np.random.default_rng(2)
    query = random_query(generator, 50)
    (hits,) = filled(path, random_rows(generator, 50), LIKELIHOOD).search([query])
    scores = hits.scores.astype(np.float64)
    chances = np.where(query.attributes == 1, scores, 1 - scores)
    np.testing.assert_allclose(hits.terms, -np.log(np.clip(chances, 1e-3, 1 - 1e-3)) * query.known, rtol=1e-5)
    np.testing.assert_allclose(hits.par_distances, hits.terms.sum(1) / MODEL.max_par, rtol=1e-5)


def test_an_unknown_attribute_never_moves_a_distance(path):
    generator = np.random.default_rng(3)
    ranking = filled(path, random_rows(generator, 100))
    known = np.array([1, 0, 1, 0, 0], np.float32)
    query = random_query(generator, 100, known=known, attributes=np.array([1, 0, 0, 0, 0], np.float32))
    other = random_query(
        generator, 100, known=known, attributes=np.array([1, 1, 0, 1, 1], np.float32), embedding=query.embedding
    )
    assert found(ranking, query) == found(ranking, other)
    assert not ranking.search([query])[0].terms[:, known == 0].any()


def test_a_batch_answers_as_its_queries_alone(path):
    generator = np.random.default_rng(4)
    ranking = filled(path, random_rows(generator, 200))
    queries = [random_query(generator, k) for k in range(1, 41)]
    together = ranking.search(queries)
    for query, hits in zip(queries, together, strict=True):
        assert found(ranking, query) == list(zip(hits.distances.tolist(), hits.ids, strict=True))


def test_an_empty_gallery_has_no_hits(path):
    assert found(filled(path, []), random_query(np.random.default_rng(5), 3)) == []


def test_an_open_search_follows_another_connection(path):
    generator = np.random.default_rng(6)
    rows = {row.id: row for row in random_rows(generator, 300)}
    ranking, writer = Ranking(Gallery(path, MODEL), MODEL), Gallery(path, MODEL)
    assert set(writer.write(list(rows.values()))) == {"added"}
    for _ in range(5):
        gone = generator.choice(list(rows), 40, replace=False).tolist()
        assert set(writer.write([Delete(id) for id in gone])) == {"deleted"}
        rows = {id: row for id, row in rows.items() if id not in gone}
        new = {row.id: row for row in random_rows(generator, 60)}
        assert writer.write(list(new.values())) == ["replaced" if id in rows else "added" for id in new]
        rows |= new
        query = random_query(generator, 1000)
        assert found(ranking, query) == brute_force(list(rows.values()), query)
        assert len(ranking) == len(rows)
    assert writer.write([Delete(id) for id in rows]) == ["deleted"] * len(rows)
    assert found(ranking, query) == []


def test_operations_of_one_write_follow_each_other(path):
    (row,) = random_rows(np.random.default_rng(7), 1)
    gallery = Gallery(path, MODEL)
    statuses = gallery.write([Delete(row.id), row, row, Delete(row.id), Delete(row.id), row])
    assert statuses == ["absent", "added", "replaced", "deleted", "absent", "added"]
    assert len(Ranking(gallery, MODEL)) == 1


def test_a_deleted_person_leaves_nothing_in_the_file(path):
    secret = "a-very-distinct-name"
    embedding, scores = np.eye(EMBEDDING, dtype=np.float32)[0], np.zeros(ATTRIBUTES, np.float32)
    gallery = Gallery(path, MODEL)
    gallery.write([checked_put(MODEL, f"{secret}.jpg", json.dumps({"image": secret}), embedding, scores)])
    gallery.write([Delete(f"{secret}.jpg")])
    gallery.close()
    assert secret.encode() not in path.read_bytes()
    assert not path.with_name(path.name + "-wal").exists()


def test_statistics_and_missing(path):
    gallery = Gallery(path, MODEL)
    vectors = np.eye(EMBEDDING, dtype=np.float32)[0], np.zeros(ATTRIBUTES, np.float32)
    for id, metadata in {
        "a": {"camera": "1", "time": "2024-05-01T12:00:00+02:00"},
        "b": {"camera": "1", "time": "2024-05-01T11:00:00Z", "weather": "rain"},
        "ü": {},
    }.items():
        gallery.write([checked_put(MODEL, id, json.dumps(metadata), *vectors)])
    assert gallery.statistics() == {
        "rows": 3,
        "cameras": {"": 1, "1": 2},
        "first_time": "2024-05-01T10:00:00+00:00",
        "last_time": "2024-05-01T11:00:00+00:00",
    }
    assert gallery.missing(["z", "ü", "a", "A", "'; DROP TABLE crop"]) == ["z", "A", "'; DROP TABLE crop"]
    assert gallery.missing([]) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ""}, "1 to 512 bytes"),
        ({"id": "ä" * 257}, "got 514"),
        ({"id": "a\0b"}, r"id holds the character U\+0000"),
        ({"metadata": r'{"camera": "a\u0000b"}'}, r"'camera' holds the character U\+0000"),
        ({"metadata": f'{{"a": {"[" * 32}{"]" * 32}}}'}, "nested deeper than 32 levels"),
        ({"metadata": '{"a":' * 980 + "1" + "}" * 980}, "nested deeper than 32 levels|not JSON"),
        ({"metadata": "{"}, "not JSON"),
        ({"metadata": "[]"}, "JSON object"),
        ({"metadata": '{"score": NaN}'}, "NaN"),
        ({"metadata": "[" * 100_000}, "not JSON"),
        ({"metadata": '{"camera": 3}'}, "'camera' must be a text"),
        ({"metadata": r'{"track": "\ud800"}'}, "surrogate"),
        ({"metadata": '{"time": "yesterday"}'}, "ISO 8601"),
        ({"metadata": '{"time": "0001-01-01T00:00:00+14:00"}'}, "ISO 8601"),
        ({"metadata": json.dumps({"note": "x" * 70_000})}, "longer than"),
        ({"embedding": np.full(EMBEDDING, np.nan, np.float32)}, "embedding holds NaN"),
        ({"embedding": np.zeros(EMBEDDING + 1, np.float32)}, "embedding must have 8 values, got 9"),
        ({"embedding": np.full(EMBEDDING, 1e30, np.float32)}, "unit length"),
        ({"scores": np.zeros(ATTRIBUTES - 1, np.float32)}, "scores must have 5 values, got 4"),
        ({"scores": np.full(ATTRIBUTES, 1.5, np.float32)}, "0..1"),
    ],
)
def test_a_wrong_row_is_refused(change, message):
    right = {
        "id": "a",
        "metadata": "{}",
        "embedding": np.eye(EMBEDDING, dtype=np.float32)[0],
        "scores": np.zeros(ATTRIBUTES, np.float32),
    }
    checked_put(MODEL, **right)
    with pytest.raises(InvalidRequest, match=message):
        checked_put(MODEL, **(right | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must be 1 to 10000, got 0"),
        ({"k": 10_001}, "got 10001"),
        ({"par_weight": float("nan")}, "par_weight"),
        ({"par_weight": float("inf")}, "par_weight"),
        ({"known": np.full(ATTRIBUTES, 1.5, np.float32)}, "known must lie in 0..1"),
        ({"known": np.full(ATTRIBUTES, -0.5, np.float32)}, "known must lie in 0..1"),
        ({"threshold": 1.5}, "threshold must be a probability in 0..1, or negative, got 1.5"),
        ({"threshold": float("nan")}, "threshold"),
        ({"attributes": np.full(ATTRIBUTES, np.nan, np.float32)}, "attributes holds NaN"),
        ({"attributes": np.full(ATTRIBUTES, -1, np.float32)}, "0..1"),
        ({"embedding": np.zeros(3, np.float32)}, "query must have 8 values, got 3"),
        ({"embedding": np.full(EMBEDDING, 3e38, np.float32)}, "query is longer than 100"),
    ],
)
def test_a_wrong_query_is_refused(path, change, message):
    generator = np.random.default_rng(8)
    ranking = filled(path, random_rows(generator, 3))
    with pytest.raises(InvalidRequest, match=message):
        ranking.search([random_query(generator, **({"k": 1} | change))])


def test_the_gallery_of_another_model_is_refused(path):
    Gallery(path, MODEL).close()
    other = replace(MODEL, digest="digest-two")
    with pytest.raises(GalleryError) as refusal:
        Gallery(path, other)
    message = str(refusal.value)
    assert message.startswith("descry: ")
    assert all(part in message for part in (str(path), "digest-one", "digest-two", "index the images again"))


def test_a_file_that_is_no_gallery_is_refused(path):
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(GalleryError, match="descry: cannot open gallery .*not a database"):
        Gallery(path, MODEL)
    assert path.read_bytes().startswith(b"not a database")


def test_a_repository_without_export_names_the_next_step(tmp_path):
    with pytest.raises(ModelError, match="descry: cannot read .*fusion.json.*descry.export"):
        ServedModel.load(tmp_path)


def test_a_new_gallery_may_be_opened_by_several_at_once(path):
    errors: list[Exception] = []
    start = threading.Barrier(6)

    def open_gallery() -> None:
        start.wait()
        try:
            Gallery(path, MODEL).close()
        except GalleryError as error:
            errors.append(error)

    threads = [threading.Thread(target=open_gallery) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


WRITER = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:4]
from gallery import Gallery, GalleryError
from test_gallery import MODEL, np, random_rows
gallery = Gallery(Path(sys.argv[1]), MODEL)
"""
ENDLESS = """
for start in range(1_000_000):
    rows = random_rows(np.random.default_rng(start), 3)
    gallery.write([type(row)(f"{start}-{row.id}", row.texts, row.metadata, row.embedding, row.scores) for row in rows])
    print(start, flush=True)
"""
FULL_DISK = """
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
rows = random_rows(np.random.default_rng(0), 2000)
written = failed = 0
for row in rows:
    try:
        gallery.write([row])
        written += 1
    except GalleryError as error:
        message = str(error)
        failed += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert gallery.statistics()["rows"] == written, (gallery.statistics(), written)
assert gallery.write(rows).count("added") == failed
print(written, failed, message)
"""


def run_writer(path: Path, script: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER + script, str(path), str(MODULES), str(Path(__file__).parent)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_writer_loses_no_acknowledged_row(path):
    writer = run_writer(path, ENDLESS)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(25)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in writer.communicate(timeout=30)[0].splitlines()]
    gallery = Gallery(path, MODEL)
    ids = [f"{start}-crop-{number:05}" for start in acknowledged for number in range(3)]
    assert gallery.missing(ids) == []
    # Three rows a transaction: none was half written.
    assert gallery.statistics()["rows"] % 3 == 0
    assert gallery.write([Delete(ids[0])]) == ["deleted"]


def test_a_full_disk_fails_the_write_and_nothing_else(path):
    output, errors = run_writer(path, FULL_DISK).communicate(timeout=60)
    assert output, errors
    written, failed, message = output.split(maxsplit=2)
    assert int(written) > 0 and int(failed) > 0
    assert message.startswith("descry: cannot write gallery gallery.sqlite: ")
    assert len(Ranking(Gallery(path, MODEL), MODEL)) == 2000
