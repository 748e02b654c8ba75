"""What a gallery goes through: updates, damage of every kind, migration, several processes, and being killed."""

import json
import random
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gallery import Gallery, GalleryError
from gallery_row import Delete, Put, Update, checked_update
from ranking import Query, Ranking
from test_gallery import ATTRIBUTES, EMBEDDING, MODEL, MODULES, random_rows

QUERY = Query(
    np.eye(EMBEDDING, dtype=np.float32)[0], np.ones(ATTRIBUTES, np.float32), np.ones(ATTRIBUTES, np.float32), 0.5, 5000
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gallery.sqlite"


@pytest.fixture(scope="module")
def thousand() -> tuple[Put, ...]:
    return tuple(random_rows(np.random.default_rng(0), 1000))


@pytest.fixture
def rows(thousand: tuple[Put, ...]) -> list[Put]:
    return list(thousand)


def filled(path: Path, rows: list[Put]) -> None:
    gallery = Gallery(path, MODEL)
    gallery.write(rows)
    gallery.close()


def served(path: Path) -> set[str]:
    """Ids that a search finds after a fresh start."""
    gallery = Gallery(path, MODEL)
    (hits,) = Ranking(gallery, MODEL).search([QUERY])
    gallery.close()
    return set(hits.ids)


def test_an_update_replaces_the_metadata_alone(path, rows):
    gallery = Gallery(path, MODEL)
    ranking = Ranking(Gallery(path, MODEL), MODEL)
    gallery.write(rows)
    (before,) = ranking.search([QUERY])
    metadata = json.dumps({"camera": "moved", "time": "2026-01-01T00:00:00Z"})
    id = before.ids[3]
    assert gallery.write([checked_update(id, metadata), checked_update("nobody", "{}")]) == ["updated", "absent"]
    (after,) = ranking.search([QUERY])
    assert after.ids == before.ids and after.metadata[3] == metadata
    np.testing.assert_array_equal(after.distances, before.distances)
    np.testing.assert_array_equal(after.scores, before.scores)
    assert gallery.statistics()["cameras"]["moved"] == 1
    assert gallery.write([Delete(id), checked_update(id, "{}")]) == ["deleted", "absent"]


def bytes_of(row: Put) -> dict[str, bytes]:
    """What of a row lies in the file as it is."""
    return {
        "id": row.id.encode(),
        "metadata": row.metadata.encode(),
        "embedding": row.embedding.tobytes(),
        "scores": row.scores.tobytes(),
    }


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("part", ["metadata", "embedding", "scores"])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_row_with_a_flipped_bit_is_left_out_and_named(path, rows, caplog, part, bit):
    rows[7] = replace(rows[7], metadata=json.dumps({"camera": "1", "note": "the seventh"}))
    filled(path, rows)
    flip(path, path.read_bytes().index(bytes_of(rows[7])[part]) + 2, bit)
    assert served(path) == {row.id for row in rows} - {rows[7].id}
    (message,) = [record.getMessage() for record in caplog.records]
    assert rows[7].id in message and "is damaged and left out" in message and "descry restore" in message
    gallery = Gallery(path, MODEL)
    assert gallery.write([Update(rows[7].id, (None,) * 4, "{}")]) == ["absent"], "a new checksum would hide the damage"
    assert gallery.write([rows[7]]) == ["replaced"]
    gallery.close()
    assert served(path) == {row.id for row in rows}


def test_a_row_that_is_damaged_while_it_is_served_is_left_out_when_read_again(path, rows):
    filled(path, rows)
    ranking = Ranking(Gallery(path, MODEL), MODEL)
    with sqlite3.connect(path) as vandal:
        vandal.execute("UPDATE crop SET camera = 'x', change = 2 WHERE id = ?", (rows[3].id,))
        vandal.execute("UPDATE meta SET value = '2' WHERE key = 'change'")
    vandal.close()
    (hits,) = ranking.search([QUERY])
    assert set(hits.ids) == {row.id for row in rows} - {rows[3].id}


def pages_of(path: Path, name: str) -> list[int]:
    """Pages of a table or index, its root apart."""
    connection = sqlite3.connect(path)
    root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
    connection.close()
    content = path.read_bytes()
    size = int.from_bytes(content[16:18], "big")
    page = content[(root - 1) * size : root * size]
    assert page[0] in (2, 5), "an interior page"
    cells = [int.from_bytes(page[12 + 2 * n : 14 + 2 * n], "big") for n in range(int.from_bytes(page[3:5], "big"))]
    return [int.from_bytes(page[cell : cell + 4], "big") for cell in cells]


def overwrite_page(path: Path, number: int) -> None:
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[16:18], "big")
    content[(number - 1) * size : number * size] = b"\xa5" * size
    path.write_bytes(content)


def test_the_rows_on_a_damaged_page_are_named_and_the_rest_is_served(path, rows, caplog):
    filled(path, rows)
    overwrite_page(path, pages_of(path, "crop")[2])
    found = served(path)
    lost = {row.id for row in rows} - found
    assert 0 < len(lost) < 100
    assert any(sum(repr(id) in record.getMessage() for id in lost) >= 20 for record in caplog.records)
    gallery = Gallery(path, MODEL)
    assert gallery.write([replace(rows[0], id="new")]) == ["added"]
    with pytest.raises(GalleryError, match="malformed; the file is damaged: restore a backup"):
        gallery.write([Delete(id) for id in lost])


def test_a_damaged_index_costs_no_row(path, rows):
    filled(path, rows)
    overwrite_page(path, pages_of(path, "sqlite_autoindex_crop_1")[0])
    assert served(path) == {row.id for row in rows}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_of_a_truncated_file_what_remains_is_served_read_only(path, rows, caplog, share):
    filled(path, rows)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    found = served(path)
    assert 0 < len(found) < len(rows)
    assert "is damaged: what remains is served, read only" in caplog.text and "rows left out: " in caplog.text
    gallery = Gallery(path, MODEL)
    with pytest.raises(GalleryError, match="the file is damaged.*: restore a backup"):
        gallery.write([replace(rows[0], id="new")])
    gallery.close()
    assert len(path.read_bytes()) == int(len(content) * share), "nothing was written"


def test_a_damaged_index_of_cameras_costs_no_count(path, rows):
    filled(path, rows)
    before = Gallery(path, MODEL).statistics()
    for name in ("crop_by_camera", "crop_by_change"):
        overwrite_page(path, pages_of(path, name)[0])
    assert Gallery(path, MODEL).statistics() == before and served(path) == {row.id for row in rows}


def test_a_file_that_lost_its_start_names_the_next_step(path, rows):
    filled(path, rows)
    content = bytearray(path.read_bytes())
    content[100:4096] = bytes(3996)
    path.write_bytes(content)
    with pytest.raises(GalleryError, match="descry: cannot open gallery .*restore a backup .*descry restore"):
        Gallery(path, MODEL)
    assert path.read_bytes() == content


@pytest.mark.parametrize("seed", range(25))
def test_whatever_byte_flips_no_wrong_row_is_served(path, rows, seed):
    """Either the gallery is refused in words, or every row served is as it was written."""
    filled(path, rows)
    chance = random.Random(seed)
    for _ in range(3):
        flip(path, chance.randrange(path.stat().st_size), chance.randrange(8))
    by_id = {row.id: row for row in rows}
    try:
        gallery = Gallery(path, MODEL)
        (hits,) = Ranking(gallery, MODEL).search([QUERY])
    except GalleryError as error:
        assert str(error).startswith("descry: ")
        return
    gallery.close()
    for id, metadata, scores in zip(hits.ids, hits.metadata, hits.scores, strict=True):
        assert by_id[id].metadata == metadata
        np.testing.assert_array_equal(by_id[id].scores, scores)


def as_version_1(path: Path) -> None:
    """What the first version of the program would have written."""
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE crop DROP COLUMN checksum")
        connection.execute("DELETE FROM meta WHERE key = 'compacted_through'")
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    connection.close()


def test_a_gallery_of_version_1_gets_checksums(path, rows, caplog):
    filled(path, rows)
    as_version_1(path)
    assert served(path) == {row.id for row in rows}
    assert "version 1 becomes 2" in caplog.text
    caplog.clear()
    flip(path, path.read_bytes().index(rows[5].embedding.tobytes()))
    assert served(path) == {row.id for row in rows} - {rows[5].id}
    assert "version 1" not in caplog.text


def test_a_version_1_gallery_of_another_model_stays_as_it_is(path, rows):
    filled(path, rows)
    as_version_1(path)
    with pytest.raises(GalleryError, match="digest-one instead of digest-two"):
        Gallery(path, replace(MODEL, digest="digest-two"))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone() == ("1",)
    connection.close()


READER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:4]
from gallery import Gallery
from ranking import Ranking
from test_gallery_life import MODEL, QUERY
ranking = Ranking(Gallery(Path(sys.argv[1]), MODEL), MODEL)
print("ready", flush=True)
for line in sys.stdin:
    (hits,) = ranking.search([QUERY])
    print(len(hits.ids), sum("round " + line.strip() + chr(34) in text for text in hits.metadata), flush=True)
"""
WRITER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:4]
from dataclasses import replace
from gallery import Gallery
from test_gallery import MODEL, np, random_rows
gallery = Gallery(Path(sys.argv[1]), MODEL)
rows = random_rows(np.random.default_rng(0), 30)
for number in range(int(sys.argv[4]), 1_000_000):
    operations = [replace(row, id=f"{number % 40}-{row.id}", metadata='{"note": "round %d"}' % number) for row in rows]
    gallery.write(operations)
    print(number, flush=True)
"""


def start(script: str, path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, str(path), str(MODULES), str(Path(__file__).parent), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(process: subprocess.Popen[str], question: str) -> list[int]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(question + "\n")
    process.stdin.flush()
    return [int(word) for word in process.stdout.readline().split()]


def test_two_processes_see_what_either_acknowledged_and_never_half_of_it(path):
    """A reader in one process, a writer of 30 rows a transaction in another, and this process writing as well."""
    reader, writer = start(READER, path), start(WRITER, path, "0")
    try:
        assert reader.stdout is not None and writer.stdout is not None
        assert reader.stdout.readline() == "ready\n" and writer.stdout.readline() == "0\n"
        here = Gallery(path, MODEL)
        for number in range(8):
            metadata = json.dumps({"note": f"round here {number}"})
            rows = random_rows(np.random.default_rng(1), 7)
            here.write([replace(row, id=f"here-{number}-{row.id}", metadata=metadata) for row in rows])
            count, of_the_round = ask(reader, f"here {number}")
            assert of_the_round == 7
            assert (count - 7 * (number + 1)) % 30 == 0, "half of a round"
    finally:
        for process in (reader, writer):
            process.kill()
            process.communicate()


def test_a_writer_killed_at_random_moments_loses_and_halves_nothing(path):
    chance = random.Random(0)
    last, rounds = -1, 0
    for _ in range(24):
        writer = start(WRITER, path, str(last + 1))
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(chance.randrange(1, 12))]
        # Between two acknowledgements, wherever the writer then is.
        signal.sigtimedwait([], chance.random() * 0.01)
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in writer.communicate(timeout=60)[0].splitlines()]
        gallery = Gallery(path, MODEL)
        (hits,) = Ranking(gallery, MODEL).search([QUERY])
        gallery.close()
        by_slot: dict[str, list[str]] = {}
        for id, metadata in zip(hits.ids, hits.metadata, strict=True):
            by_slot.setdefault(id.split("-")[0], []).append(metadata)
        assert all(len(notes) == 30 and len(set(notes)) == 1 for notes in by_slot.values()), "no round is half there"
        newest = max(int(json.loads(notes[0])["note"].split()[1]) for notes in by_slot.values())
        assert acknowledged[-1] <= newest <= acknowledged[-1] + 1
        last, rounds = newest, rounds + len(acknowledged)
    assert rounds >= 24
