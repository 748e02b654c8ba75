"""Filters: exactly the rows that they name are ranked, whatever has been written and deleted before."""

import json
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from brute_force import distance, filled, make_query, make_rows
from filters import Filter, read_filter
from gallery import Gallery
from gallery_row import Delete, InvalidRequest
from hypothesis import given, settings
from hypothesis import strategies as st
from row_table import METADATA_COLUMNS
from test_gallery import MODEL

NAMES = ("", "1", "2", "ä")
VALUES = ("rain", "", 1, 1.0, True, False, 0, "1", 2.5)
HOUR = timedelta(hours=1)
START = datetime(2024, 5, 1, tzinfo=timezone.utc)
times = st.integers(0, 5).map(lambda hours: (START + hours * HOUR).isoformat())
lists = st.lists(st.sampled_from(NAMES), max_size=3)
metadata = st.fixed_dictionaries(
    {},
    optional={
        "camera": st.sampled_from(NAMES),
        "track": st.sampled_from(NAMES),
        "time": times,
        "weather": st.sampled_from((*VALUES, None, [1], {"a": 1})),
    },
)
wanted = st.fixed_dictionaries(
    {},
    optional={
        "camera": lists,
        "track": lists,
        "time": st.fixed_dictionaries({}, optional={"from": times, "to": times}),
        "metadata": st.dictionaries(st.sampled_from(["weather", "track", "absent"]), st.lists(st.sampled_from(VALUES))),
    },
)


def same(value, other) -> bool:
    """Equality of JSON: numbers by value, and `true` is no number."""
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def passes(content: dict, wanted: dict) -> bool:
    if not all((content.get(key) or "") in wanted[key] for key in ("camera", "track") if key in wanted):
        return False
    if wanted.get("time"):
        time, limits = content.get("time"), wanted["time"]
        if time is None or not limits.get("from", "") <= time < limits.get("to", "9"):
            return False
    return all(
        any(same(content.get(key), value) and not isinstance(content.get(key), (list, dict)) for value in values)
        for key, values in wanted.get("metadata", {}).items()
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(metadata, max_size=25), wanted, st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_the_k_best_of_the_rows_that_pass_are_ranked(tmp_path_factory, contents, wanted, k, seed):
    generator = np.random.default_rng(seed)
    rows = make_rows(generator, contents, levels=2)
    query = make_query(generator, k, levels=2, filter=read_filter(json.dumps(wanted)))
    (hits,) = filled(tmp_path_factory.mktemp("filters"), rows).search([query])
    kept = [row for row in rows if passes(json.loads(row.metadata), wanted)]
    best = sorted((distance(row, query, MODEL), row.id) for row in kept)[:k]
    assert list(zip(hits.distances, hits.ids, strict=True)) == best


def test_a_filter_follows_what_is_written_and_deleted(tmp_path):
    generator = np.random.default_rng(0)
    query = make_query(generator, 100, filter=read_filter('{"metadata": {"weather": ["rain"]}, "track": ["a"]}'))
    ranking, kept = filled(tmp_path, []), {}
    writer = Gallery(tmp_path / "gallery.sqlite", MODEL)
    for _ in range(6):
        contents = [
            {"weather": str(generator.choice(["rain", "sun"])), "track": str(generator.choice(["a", "b"]))}
            for _ in range(20)
        ]
        rows = make_rows(generator, contents)[:15]
        gone = [f"{number:03}" for number in generator.integers(0, 20, 5)]
        writer.write([*rows, *map(Delete, gone)])
        kept |= {row.id: row for row in rows}
        kept = {id: row for id, row in kept.items() if id not in gone}
        passing = [row for row in kept.values() if json.loads(row.metadata) == {"weather": "rain", "track": "a"}]
        assert set(ranking.search([query])[0].ids) == {row.id for row in passing}
    assert len(ranking) == len(kept)


def test_a_time_is_compared_as_an_instant(tmp_path):
    contents = [{"time": "2024-05-01T12:00:00+02:00"}, {"time": "2024-05-01T10:00:00"}, {"time": "2024-05-01"}, {}]
    generator = np.random.default_rng(0)
    rows = make_rows(generator, contents)
    ranking = filled(tmp_path, rows)
    for limits, expected in (
        ({"from": "2024-05-01T10:00:00Z"}, [0, 1]),
        ({"from": "2024-05-01T10:00:00.000001"}, []),
        ({"to": "2024-05-01T03:00:00-07:00"}, [2]),
        ({"from": "2024-05-01", "to": "2024-05-01T12:00:00.5+02:00"}, [0, 1, 2]),
        ({}, [0, 1, 2, 3]),
    ):
        query = make_query(generator, 9, filter=read_filter(json.dumps({"time": limits})))
        assert set(ranking.search([query])[0].ids) == {rows[number].id for number in expected}


def test_any_number_of_metadata_keys_may_be_asked_for(tmp_path):
    generator = np.random.default_rng(0)
    rows = make_rows(generator, [{f"key {number}": number} for number in range(3 * METADATA_COLUMNS)])
    ranking = filled(tmp_path, rows)
    for number in (*range(3 * METADATA_COLUMNS), 0):
        query = make_query(generator, 9, filter=Filter(metadata={f"key {number}": frozenset([(float, number)])}))
        assert ranking.search([query])[0].ids == [rows[number].id]
    assert len(ranking._table._metadata_columns) == METADATA_COLUMNS


def test_values_that_no_row_has_any_more_are_forgotten(tmp_path):
    generator = np.random.default_rng(0)
    ranking = filled(tmp_path, [])
    writer = Gallery(tmp_path / "gallery.sqlite", MODEL)
    for round in range(60):
        writer.write(make_rows(generator, [{"track": f"{round}-{number}"} for number in range(50)]))
        ranking.refresh()
    assert len(ranking) == 50 and len(ranking._table.tracks._numbers) < 1200
    query = make_query(generator, 99, filter=read_filter('{"track": ["59-7", "58-7"]}'))
    assert len(ranking.search([query])[0].ids) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must be a JSON object"),
        ('{"city": []}', "'city' is not known; valid: camera, track, time, metadata"),
        ('{"camera": "1"}', "'camera' must be a list of texts"),
        ('{"track": [1]}', "'track' must be a list of texts"),
        ('{"time": "now"}', "'time' must be a JSON object"),
        ('{"time": {"since": "2024"}}', "'time' 'since' is not known; valid: from, to"),
        ('{"time": {"from": 5}}', "'time' 'from' must be a text, got 5"),
        ('{"time": {"to": "noon"}}', "'time' 'to' must be ISO 8601"),
        ('{"time": {"to": "0001-01-01T00:00:00+14:00"}}', "ISO 8601"),
        ('{"metadata": []}', "'metadata' must be a JSON object"),
        ('{"metadata": {"a": 1}}', "'metadata' 'a' must be a list of texts, numbers and booleans"),
        ('{"metadata": {"a": [null]}}', "list of texts, numbers and booleans"),
        ('{"metadata": {"a": [[1]]}}', "list of texts, numbers and booleans"),
        ('{"metadata": {"a": [NaN]}}', "not JSON"),
        ("{" * 50_000, "not JSON"),
        ('{"camera": ' + "[" * 100 + "]" * 100 + "}", "nested deeper than 32 levels"),
        (json.dumps({"metadata": {f"key {n}": [n] for n in range(METADATA_COLUMNS + 1)}}), "has 17 keys, above 16"),
    ],
)
def test_a_malformed_filter_is_refused(text, message):
    with pytest.raises(InvalidRequest, match="filter") as refusal:
        read_filter(text)
    assert message in str(refusal.value)
