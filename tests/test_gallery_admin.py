"""Keeping a gallery in order while it is served: prune, compact, verify, back up, read out in pages."""

import base64
import json
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import upkeep as upkeep_module
from admin_requests import AdminRequests
from gallery import Gallery, GalleryError
from gallery_row import Delete, InvalidRequest, Put, checked_put
from ranking import Ranking
from test_gallery import MODEL, random_rows
from test_gallery_life import QUERY, flip, overwrite_page, pages_of
from upkeep import LOST, Upkeep


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gallery.sqlite"


def dated_rows(count: int) -> list[Put]:
    """Rows of cameras 0 to 2; every fourth has no time, the others one a day from 2026-01-01 on."""
    made = []
    for index, row in enumerate(random_rows(np.random.default_rng(0), count)):
        metadata = {"camera": str(index % 3), "note": f"the note of {row.id}"}
        if index % 4:
            metadata["time"] = f"2026-01-{index % 28 + 1:02}T12:00:00+02:00"
        made.append(checked_put(MODEL, row.id, json.dumps(metadata), row.embedding, row.scores))
    return made


def filled(path: Path, count: int = 200) -> list[Put]:
    rows = dated_rows(count)
    gallery = Gallery(path, MODEL)
    gallery.write(rows)
    gallery.close()
    return rows


def ids_of(ranking: Ranking) -> set[str]:
    (hits,) = ranking.search([QUERY])
    return set(hits.ids)


def times_of(row: Put) -> tuple[str, str]:
    return row.texts[1] or "", row.texts[2] or "9999"


@pytest.mark.parametrize(
    ("camera", "older_than"), [("1", None), (None, "2026-01-15T10:00:00+00:00"), ("2", "2026-01-21T00:00:00+00:00")]
)
def test_prune_deletes_what_matches_and_nothing_else(path, monkeypatch, camera, older_than):
    monkeypatch.setattr(upkeep_module, "PRUNED_A_TRANSACTION", 7)
    monkeypatch.setattr(upkeep_module, "PRUNED_A_CALL", 20)
    rows = filled(path)
    ranking, keeper = Ranking(Gallery(path, MODEL), MODEL), Upkeep(path, MODEL)
    kept = {
        row.id
        for row in rows
        if (camera is not None and times_of(row)[0] != camera)
        or (older_than is not None and times_of(row)[1] >= older_than)
    }
    assert 0 < len(kept) < len(rows) - 20
    counted = keeper.prune(camera, older_than, dry_run=True)
    assert counted == {"deleted": 0, "remaining": len(rows) - len(kept)}
    assert ids_of(ranking) == {row.id for row in rows}
    answer = keeper.prune(camera, older_than, dry_run=False)
    assert answer == {"deleted": 20, "remaining": len(rows) - len(kept) - 20}
    for _ in range(20):
        if not answer["remaining"]:
            break
        answer = keeper.prune(camera, older_than, dry_run=False)
    assert ids_of(ranking) == kept
    assert keeper.prune(camera, older_than, dry_run=False) == {"deleted": 0, "remaining": 0}


def test_a_row_of_the_very_time_is_not_older(path):
    (row,) = random_rows(np.random.default_rng(0), 1)
    gallery, keeper = Gallery(path, MODEL), Upkeep(path, MODEL)
    limit = "2026-01-03T00:00:00+00:00"
    kept = ["2026-01-03T00:00:00", "2026-01-03T01:00:00+01:00", "2026-01-03T00:00:00.000001Z", "2026-01-03T00:00:00.1"]
    older = ["2026-01-02T23:59:59.999999", "2026-01-03T00:59:59+01:00", "2025-12-31T00:00:00Z"]
    for time in kept + older:
        gallery.write([checked_put(MODEL, time, json.dumps({"time": time}), row.embedding, row.scores)])
    assert keeper.prune(None, limit, dry_run=False) == {"deleted": 3, "remaining": 0}
    assert sorted(gallery.missing(kept + older)) == sorted(older)


def test_a_row_without_a_time_is_never_old(path):
    rows = filled(path)
    Upkeep(path, MODEL).prune(None, "9000-01-01T00:00:00+00:00", dry_run=False)
    gallery = Gallery(path, MODEL)
    assert ids_of(Ranking(gallery, MODEL)) == {row.id for row in rows if row.texts[2] is None}


def test_compacting_shrinks_the_file_and_no_reader_misses_a_deletion(path):
    rows = filled(path, 2000)
    gallery = Gallery(path, MODEL)
    here, behind, late = (Ranking(Gallery(path, MODEL), MODEL) for _ in range(3))
    gone, kept = rows[:1900], {row.id for row in rows[1900:]}
    gallery.write([Delete(row.id) for row in gone[:1000]])
    assert len(ids_of(behind)) == 1000
    gallery.write([Delete(row.id) for row in gone[1000:]])
    assert ids_of(here) == kept
    answer = Upkeep(path, MODEL).compact()
    assert answer["marks"] == 1900 and answer["bytes_after"] < answer["bytes_before"] / 4
    assert path.stat().st_size == answer["bytes_after"]
    for ranking in (here, behind, late, Ranking(Gallery(path, MODEL), MODEL)):
        assert ids_of(ranking) == kept
    gallery.write([replace(gone[0], metadata='{"note": "again"}'), Delete(rows[1900].id)])
    for ranking in (here, behind, late):
        assert ids_of(ranking) == kept - {rows[1900].id} | {gone[0].id}
    assert Upkeep(path, MODEL).compact()["marks"] == 1 and Upkeep(path, MODEL).compact()["marks"] == 0


def test_compacting_waits_for_writers_and_they_for_it(path):
    filled(path)
    stop, errors, written = threading.Event(), list[Exception](), list[str]()

    def write() -> None:
        gallery = Gallery(path, MODEL)
        for number, row in enumerate(random_rows(np.random.default_rng(1), 300)):
            if stop.is_set():
                return
            try:
                gallery.write([replace(row, id=f"during-{number}")])
                written.append(f"during-{number}")
            except GalleryError as error:
                errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            Upkeep(path, MODEL).compact()
    finally:
        stop.set()
        writer.join()
    assert errors == [] and Gallery(path, MODEL).missing(written) == []


def verified(keeper: Upkeep) -> tuple[int, dict[str, str]]:
    """Rows, and the reason of each damaged one, of a whole gallery."""
    after: int | None = 0
    count, damaged = 0, {}
    for _ in range(100):
        page = keeper.check_rows(after or 0)
        count += page["rows"]
        damaged |= {entry["id"]: entry["reason"] for entry in page["damaged"]}
        if (after := page["next"]) is None:
            return count, damaged
    raise AssertionError("no end")


def test_a_sound_gallery_verifies(path, monkeypatch):
    monkeypatch.setattr(upkeep_module, "CHECKED_A_CALL", 17)
    rows = filled(path)
    Gallery(path, MODEL).write([Delete(row.id) for row in rows[60:120]])
    keeper = Upkeep(path, MODEL)
    assert verified(keeper) == (140, {})
    assert keeper.check_file() == {"rows": 140, "problems": []}


def test_an_empty_gallery_verifies(path):
    keeper = Upkeep(path, MODEL)
    assert verified(keeper) == (0, {}) and keeper.check_file() == {"rows": 0, "problems": []}
    assert keeper.rows(0, None, 10, True) == {"rows": [], "damaged": [], "next": None, "until": 0}


def test_verify_names_each_damaged_row_and_why(path):
    rows = filled(path)
    with sqlite3.connect(path) as vandal:
        vandal.create_function("row_checksum", 8, upkeep_module.checksum)
        content = "id, image, camera, time, track, metadata, embedding, scores"
        changes = {
            1: "scores = x'00'",
            2: f"scores = x'{np.full(5, 2, np.float32).tobytes().hex()}'",
            3: f"embedding = x'{np.full(8, np.nan, np.float32).tobytes().hex()}'",
            4: "metadata = '{'",
            5: "camera = 'elsewhere'",
        }
        for index, change in changes.items():
            vandal.execute(f"UPDATE crop SET {change} WHERE id = ?", (rows[index].id,))
            vandal.execute(f"UPDATE crop SET checksum = row_checksum({content}) WHERE id = ?", (rows[index].id,))
        vandal.execute("UPDATE crop SET change = 99 WHERE id = ?", (rows[6].id,))
    vandal.close()
    flip(path, path.read_bytes().index(f"the note of {rows[0].id}".encode()))
    keeper = Upkeep(path, MODEL)
    count, damaged = verified(keeper)
    assert count == 200 and set(damaged) == {row.id for row in rows[:6]}
    for index, words in enumerate(
        ["checksum", "multiple of element size", "0..1", "NaN", "not JSON", "differ from its metadata"]
    ):
        assert words in damaged[rows[index].id]
    assert "change 99, after the last one, 1" in keeper.check_file()["problems"][0]
    exported = keeper.rows(0, None, 1000, True)
    assert {row["id"] for row in exported["rows"]} == {row.id for row in rows[6:]}
    assert {entry["id"] for entry in exported["damaged"]} == set(damaged)


def test_verify_names_the_rows_of_a_damaged_page(path):
    rows = filled(path, 1000)
    overwrite_page(path, pages_of(path, "crop")[5])
    keeper = Upkeep(path, MODEL)
    count, damaged = verified(keeper)
    assert count + len(damaged) == 1000 and 0 < len(damaged) < 100
    assert set(damaged.values()) == {LOST} and set(damaged) <= {row.id for row in rows}
    assert keeper.check_file()["problems"]


def test_a_backup_is_the_gallery_of_one_moment(path):
    rows = filled(path)
    keeper, writer = Upkeep(path, MODEL), Gallery(path, MODEL)
    answer = keeper.backup()
    copy = path.with_name(answer["backup"])
    assert answer["rows"] == 200 and answer["bytes"] == copy.stat().st_size
    assert copy.name.startswith("gallery-") and copy.name.endswith("Z.backup.sqlite")
    writer.write([Delete(row.id) for row in rows[:150]])
    assert keeper.backup()["rows"] == 50
    assert sorted(each.suffix for each in path.parent.iterdir()) == [".sqlite"] * 3 + [".sqlite-shm", ".sqlite-wal"]
    restored = Gallery(copy, MODEL)
    assert ids_of(Ranking(restored, MODEL)) == {row.id for row in rows}


def test_a_backup_while_rows_are_written_is_whole(path):
    filled(path)
    stop, batches = threading.Event(), list[int]()

    def write() -> None:
        gallery = Gallery(path, MODEL)
        rows = random_rows(np.random.default_rng(2), 10)
        for number in range(2000):
            if stop.is_set():
                return
            gallery.write([replace(row, id=f"{number}-{row.id}") for row in rows])
            batches.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = [Upkeep(path, MODEL).backup()["rows"] for _ in range(4)]
    finally:
        stop.set()
        writer.join()
    assert all(count % 10 == 0 for count in counts) and counts == sorted(counts)
    assert 200 <= counts[0] and counts[-1] <= 200 + 10 * len(batches)


def test_a_damaged_gallery_is_not_backed_up(path):
    filled(path, 1000)
    overwrite_page(path, pages_of(path, "crop")[5])
    with pytest.raises(GalleryError, match="cannot back up gallery gallery.sqlite: .*malformed.*restore a backup"):
        Upkeep(path, MODEL).backup()
    assert [each for each in path.parent.iterdir() if "backup" in each.name] == []


def test_rows_come_in_pages_with_their_vectors_and_without_what_is_added_meanwhile(path):
    rows = filled(path)
    keeper, writer = Upkeep(path, MODEL), Gallery(path, MODEL)
    page = keeper.rows(0, None, 70, True)
    read, until = page["rows"], page["until"]
    writer.write([replace(rows[0], id="added meanwhile"), Delete(rows[150].id)])
    for _ in range(10):
        if page["next"] is None:
            break
        page = keeper.rows(page["next"], until, 70, True)
        read += page["rows"]
    assert [row["id"] for row in read] == [row.id for row in rows if row is not rows[150]]
    by_id = {row.id: row for row in rows}
    for row in read:
        assert row["metadata"] == json.loads(by_id[row["id"]].metadata)
        for name in ("embedding", "scores"):
            vector = np.frombuffer(base64.b64decode(row[name]), "<f4")
            np.testing.assert_array_equal(vector, getattr(by_id[row["id"]], name))
    assert set(keeper.rows(0, None, 1, False)["rows"][0]) == {"id", "metadata"}


@pytest.mark.parametrize(
    ("request_text", "message"),
    [
        (r'{"do": "prune", "camera": "\ud800"}', "'camera' holds half a character"),
        (r'{"do": "prune", "camera": "a\u0000b"}', r"'camera' holds the character U\+0000"),
        ('{"do": "prune", "older_than": 5}', "'older_than' must be a text, got 5"),
        ('{"do": "rows", "count": [[[1]]]}', "'count' must be a whole number"),
    ],
)
def test_a_wrong_request_is_refused(path, request_text, message):
    with pytest.raises(InvalidRequest, match=message):
        AdminRequests(Upkeep(path, MODEL)).answer(request_text)
