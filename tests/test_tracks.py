"""Ranking tracks instead of images, against a loop; the rows in memory are those of any other search."""

import json

import numpy as np
import pytest
from brute_force import distance, filled, make_query, make_rows
from filters import Filter
from gallery import Gallery
from gallery_row import Delete, InvalidRequest
from hypothesis import given, settings
from hypothesis import strategies as st
from query import read_options
from test_gallery import LIKELIHOOD, MODEL
from tracks import FRAMES_SHOWN

tracks = st.lists(
    st.fixed_dictionaries(
        {"camera": st.sampled_from("12")}, optional={"track": st.sampled_from(["", "a", "b", "c", "d"])}
    ),
    max_size=30,
)


def ranked_by_hand(rows, query, model):
    """(distance, frames as (distance, id), best first) of the k best tracks."""
    owned: dict[str, list] = {}
    for row in rows:
        content = json.loads(row.metadata)
        if query.filter.cameras is None or content["camera"] in query.filter.cameras:
            owned.setdefault(content.get("track") or f"alone {row.id}", []).append(
                (distance(row, query, model), row.id)
            )
    found = []
    for frames in map(sorted, owned.values()):
        values = np.array([one for one, _ in frames], np.float64)
        found.append((np.float32(values.mean()) if query.by == "mean" else frames[0][0], frames))
    return sorted(found, key=lambda track: (track[0], track[1][0][1]))[: query.k]


@settings(max_examples=60, deadline=None)
@given(tracks, st.integers(1, 9), st.sampled_from(["best", "mean"]), st.sampled_from([0, 2]), st.booleans(), st.data())
def test_tracks_are_ranked_as_by_hand(tmp_path_factory, contents, k, by, levels, likely, data):
    model = LIKELIHOOD if likely else MODEL
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rows = make_rows(generator, contents, levels)
    cameras = data.draw(st.sampled_from([None, frozenset("1"), frozenset("9")]))
    query = make_query(generator, k, levels, by=by, filter=Filter(cameras))
    (hits,) = filled(tmp_path_factory.mktemp("tracks"), rows, model).search([query])
    expected = ranked_by_hand(rows, query, model)
    assert hits.ids == [frames[0][1] for _, frames in expected]
    np.testing.assert_array_equal(hits.distances, np.array([one for one, _ in expected], np.float32))
    for listed, (_, frames) in zip(hits.frames, expected, strict=True):
        assert [(np.float32(one["distance"]), one["id"]) for one in json.loads(listed)] == frames
    fused = query.par_weight * hits.par_distances + hits.embedding_distances
    np.testing.assert_allclose(hits.distances, fused, atol=1e-6)


def test_a_track_by_its_best_image_is_where_that_image_is(tmp_path):
    generator = np.random.default_rng(0)
    rows = make_rows(generator, [{"track": str(number % 7)} for number in range(40)])
    ranking = filled(tmp_path, rows)
    query = make_query(generator, 7)
    by_track = make_query(
        generator, 7, by="best", **{name: getattr(query, name) for name in ("embedding", "attributes", "known")}
    )
    images, tracks = ranking.search([query, by_track])
    assert tracks.ids[0] == images.ids[0] and tracks.distances[0] == images.distances[0]
    assert images.frames == ["[]"] * 7
    np.testing.assert_array_equal(tracks.terms[0], images.terms[0])


def test_tracks_follow_what_is_written_and_deleted(tmp_path):
    generator = np.random.default_rng(0)
    rows = make_rows(generator, [{"track": str(number % 5), "camera": ""} for number in range(30)])
    ranking = filled(tmp_path, rows)
    writer = Gallery(tmp_path / "gallery.sqlite", MODEL)
    query = make_query(generator, 9, by="mean")
    for _ in range(4):
        (hits,) = ranking.search([query])
        assert hits.ids == [frames[0][1] for _, frames in ranked_by_hand(rows, query, MODEL)]
        gone, rows = rows[:6], rows[6:]
        writer.write([Delete(row.id) for row in gone])


def test_of_a_long_track_the_best_images_are_listed(tmp_path):
    generator = np.random.default_rng(0)
    rows = make_rows(generator, [{"track": "long"} for _ in range(FRAMES_SHOWN + 20)])
    query = make_query(generator, 3, by="best")
    (hits,) = filled(tmp_path, rows).search([query])
    (listed,) = map(json.loads, hits.frames)
    assert [one["id"] for one in listed] == [
        id for _, id in sorted((distance(row, query, MODEL), row.id) for row in rows)[:FRAMES_SHOWN]
    ]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("{}", None),
        ('{"rank": "images", "by": "mean"}', None),
        ('{"rank": "tracks"}', "best"),
        ('{"rank": "tracks", "by": "mean"}', "mean"),
    ],
)
def test_options(text, meant):
    assert read_options(text) == meant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "options must be a JSON object"),
        ('{"order": 1}', "'order' is not known; valid: rank, by"),
        ('{"rank": "people"}', "'rank' must be one of images, tracks, got 'people'"),
        ('{"rank": "tracks", "by": ["best"]}', "'by' must be one of best, mean"),
    ],
)
def test_wrong_options_are_refused(text, message):
    with pytest.raises(InvalidRequest) as refusal:
        read_options(text)
    assert message in str(refusal.value)
