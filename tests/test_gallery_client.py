"""Keeping a gallery from the client and the command line: the wire is real, and so is the gallery behind it."""

import contextlib
import io
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from admin_requests import AdminRequests
from fake_server import SCHEMA, FakeServer, serving
from gallery import Gallery
from gallery_row import Delete, Put, checked_put, checked_update
from served_model import ServedModel
from test_gallery_life import flip, overwrite_page, pages_of
from upkeep import Upkeep

from descry.client import InvalidRequest, SearchClient
from descry.client.cli import main
from descry.client.reindexing import reindex
from descry.client.restoring import restore

MODEL = ServedModel(SCHEMA, "abc", "asmr", 1.0, 2.0, 1.5, "euclidean", 4, (256, 128))


class GalleryServer(FakeServer):
    """The fake server with the real gallery, and what the real `gallery_admin` does."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.gallery = Gallery(path, MODEL)
        self.admin = AdminRequests(Upkeep(path, MODEL))
        self.calls: list[int] = []

    def gallery_write(self, inputs):
        id, operation = inputs["id"][0].decode(), inputs["operation"][0]
        if operation == b"delete":
            return {"status": [self.gallery.write([Delete(id)])[0].encode()]}
        return {"status": [self.gallery.write([checked_update(id, inputs["metadata"][0].decode())])[0].encode()]}

    def gallery_admin(self, inputs):
        return {"response": [json.dumps(self.admin.answer(inputs["request"][0].decode())).encode()]}

    def gallery_info(self, inputs):
        answer = super().gallery_info(inputs)
        content = json.loads(answer["response"][0])
        if "rows" in content:
            content |= self.gallery.statistics()
        return {"response": [json.dumps(content).encode()]}


def dated(count: int) -> list[Put]:
    """Row n was seen n days after 2026-01-01 by camera n % 2; the last one at no time."""
    generator, rows = np.random.default_rng(0), []
    for number in range(count):
        content = {"image": f"{number}.png", "camera": str(number % 2), "time": f"2026-01-{number + 1:02}T12:00:00Z"}
        if number == count - 1:
            del content["time"]
        vectors = generator.normal(size=4).astype(np.float32), generator.random(8).astype(np.float32)
        rows.append(checked_put(MODEL, f"row-{number:02}", json.dumps(content), *vectors))
    return rows


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GalleryServer]:
    with serving(GalleryServer(tmp_path / "gallery.sqlite")) as service:
        service.gallery.write(dated(30))
        yield service


@pytest.fixture
def client(server: GalleryServer) -> Iterator[SearchClient]:
    with SearchClient(server.url, timeout=5) as connection:
        yield connection


@pytest.fixture
def descry(server: GalleryServer, monkeypatch, capsys):
    monkeypatch.setenv("DESCRY_URL", server.url)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def test_many_rows_are_deleted_and_updated_in_one_request_each(server, client):
    sent = len(server.requests)
    answers = client.delete(["row-01", "absent", "row-02", "row-01"])
    assert answers == {"row-01": "deleted", "absent": "absent", "row-02": "deleted"}
    assert client.update({"row-03": {"camera": "moved"}, "row-01": {}}) == {"row-03": "updated", "row-01": "absent"}
    assert [model for model, _ in server.requests[sent:]] == ["gallery_write"] * 5, "rows of the two requests"
    assert client.stats().cameras["moved"] == 1
    assert client.delete([]) == {} == client.update({})


def test_prune_by_age_and_camera(server, descry):
    code, out, err = descry("prune", "--older-than", "2026-01-11T00:00:00Z", "--dry-run")
    assert (code, out) == (0, "10 rows would be deleted\n") and "without --dry-run" in err
    assert server.gallery.statistics()["rows"] == 30
    assert descry("prune", "--older-than", "2026-01-11T00:00:00Z", "--camera", "1")[:2] == (0, "5 rows deleted\n")
    assert descry("prune", "--camera", "1")[1] == "10 rows deleted\n"
    assert descry("prune", "--older-than", "0d")[1] == "15 rows deleted\n"
    assert server.gallery.missing(["row-29"]) == ["row-29"]
    code, _, err = descry("prune")
    assert code == 1 and "--older-than AGE, --camera NAME or both" in err


def test_prune_goes_on_until_nothing_is_left(server, client, monkeypatch):
    import upkeep

    monkeypatch.setattr(upkeep, "PRUNED_A_CALL", 4)
    steps: list[tuple[int, int]] = []
    assert client.prune(camera="0", progress=lambda *numbers: steps.append(numbers)) == 15
    assert steps == [(4, 11), (8, 7), (12, 3)]


def test_verify_tells_a_sound_gallery_from_a_damaged_one(server, descry):
    assert descry("verify")[:2] == (0, "30 rows checked, 0 damaged, 0 problems of the file\n")
    server.admin.answer('{"do": "compact"}')  # out of the write-ahead log
    flip(server.path, server.path.read_bytes().index(dated(30)[7].embedding.tobytes()))
    server.admin = AdminRequests(Upkeep(server.path, MODEL))
    code, out, err = descry("verify")
    assert code == 1 and "does not fit its checksum" in out and "30 rows checked, 1 damaged" in out
    assert "descry restore" in err
    content = json.loads(descry("verify", "--json")[1])
    assert content["rows"] == 30 and len(content["damaged"]) == 1 and content["sound"] is False


def test_compact_and_backup(server, descry):
    descry("prune", "--camera", "0")
    code, out, _ = descry("compact")
    assert code == 0 and "bytes before" in out
    code, out, err = descry("backup")
    assert code == 0 and (server.path.parent / out.strip()).is_file() and "descry restore gallery-" in err


@pytest.fixture
def backup(server: GalleryServer, client: SearchClient) -> Path:
    return server.path.parent / client.backup()


def rows_of(path: Path) -> int:
    gallery = Gallery(path, MODEL)
    with contextlib.closing(gallery):
        return gallery.statistics()["rows"]


def test_restore_puts_a_backup_back_and_keeps_the_file_before_it(tmp_path, descry, backup):
    gallery = tmp_path / "other" / "gallery.sqlite"
    assert descry("restore", backup, "--gallery", gallery)[:2] == (0, f"{gallery}: 30 rows of model abc\n")
    opened = Gallery(gallery, MODEL)
    opened.write([Delete("row-00"), Delete("row-01")])
    command = [sys.executable, "-m", "descry.client", "restore", str(backup), "--gallery", str(gallery)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1 and f"a server has {gallery} open; stop it first" in refused.stderr
    shutil.copy(gallery, tmp_path / "crashed.sqlite")
    shutil.copy(f"{gallery}-wal", tmp_path / "crashed.sqlite-wal")
    opened.close()
    crashed = tmp_path / "crashed.sqlite"
    code, out, err = descry("restore", backup, "--gallery", crashed)
    assert code == 0 and rows_of(crashed) == 30
    (kept,) = tmp_path.glob("crashed-*.replaced.sqlite")
    assert str(kept) in err and rows_of(kept) == 28, "with what its write-ahead log held"


def test_restore_refuses_what_is_damaged_or_another_models(tmp_path, descry, backup):
    gallery = tmp_path / "gallery.sqlite"
    before = gallery.read_bytes()
    for name, change in {
        "cut.sqlite": lambda path: path.write_bytes(path.read_bytes()[:9000]),
        "text.sqlite": lambda path: path.write_text("no database"),
        "page.sqlite": lambda path: overwrite_page(path, 3),
    }.items():
        copy = tmp_path / name
        shutil.copy(backup, copy)
        change(copy)
        code, _, err = descry("restore", copy, "--gallery", gallery)
        assert code == 1 and "take another" in err and str(copy) in err
    other = tmp_path / "other.sqlite"
    shutil.copy(backup, other)
    with sqlite3.connect(other) as connection:
        connection.execute("UPDATE meta SET value = 'xyz' WHERE key = 'model_digest'")
    connection.close()
    code, _, err = descry("restore", other, "--gallery", gallery)
    assert code == 1 and "belongs to model xyz" in err and "to abc" in err
    assert "is not a file" in descry("restore", tmp_path / "absent", "--gallery", gallery)[2]
    assert gallery.read_bytes() == before
    fusion = tmp_path / "models" / "gallery_search" / "fusion.json"
    fusion.parent.mkdir(parents=True)
    fusion.write_text('{"model_digest": "abc"}')
    fresh = tmp_path / "fresh.sqlite"
    assert descry("restore", other, "--gallery", fresh, "--repository", tmp_path / "models")[0] == 1
    assert descry("restore", backup, "--gallery", fresh, "--repository", tmp_path / "models")[0] == 0


def test_restore_replaces_a_gallery_that_is_damaged(tmp_path, backup):
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"what a broken disk left" * 1000)
    done = restore(backup, damaged)
    assert done.rows == 30 and done.kept is not None and done.kept.read_bytes().startswith(b"what a broken")
    assert rows_of(damaged) == 30


def test_export_writes_every_row_to_parquet(server, descry, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "gallery.parquet"
    assert descry("export-gallery", path)[:2] == (0, f"{path}\n")
    table, rows = parquet.read_table(path), dated(30)
    assert table.column("id").to_pylist() == [row.id for row in rows]
    assert table.column("time").to_pylist() == [json.loads(row.metadata).get("time") for row in rows]
    assert [json.loads(text) for text in table.column("metadata").to_pylist()] == [
        json.loads(row.metadata) for row in rows
    ]
    for name in ("embedding", "scores"):
        exported = np.array(table.column(name).to_pylist(), np.float32)
        np.testing.assert_array_equal(exported, np.stack([getattr(row, name) for row in rows]))
    about = json.loads(table.schema.metadata[b"descry"])
    assert about["model_digest"] == "abc" and len(about["elements"]) == 8
    code, _, err = descry("export-gallery", tmp_path / "absent" / "x.parquet")
    assert code == 1 and "cannot write" in err and list(tmp_path.glob("*.partial")) == []


def test_export_names_damaged_rows(server, descry, tmp_path):
    pytest.importorskip("pyarrow")
    server.gallery.write([Put(f"more-{n}-{row.id}", row.texts, row.metadata, row.embedding, row.scores)
                          for n in range(50) for row in dated(30)])  # fmt: skip
    server.admin.answer('{"do": "compact"}')  # out of the write-ahead log
    overwrite_page(server.path, pages_of(server.path, "crop")[3])
    server.admin, server.gallery = AdminRequests(Upkeep(server.path, MODEL)), Gallery(server.path, MODEL)
    code, _, err = descry("export-gallery", tmp_path / "gallery.parquet")
    assert code == 1 and "it lies on a damaged page" in err


def test_reindex_fills_another_server_and_continues(client, server, fake, folder, tmp_path):
    for row, image in enumerate(sorted(folder.rglob("*.[jP]*"))):
        content = json.dumps({"image": image.relative_to(folder).as_posix(), "camera": "9", "note": row})
        server.gallery.write([checked_update(f"row-{row:02}", content)])
    with SearchClient(fake.url, timeout=5) as target:
        report = reindex(client, target, folder, progress=io.StringIO())
        assert (report.found, report.indexed, len(report.failed)) == (30, 6, 24)
        assert "cannot read the image" in report.failed["row-29"]
        assert set(fake.rows) == {f"row-{row:02}" for row in range(6)}
        assert json.loads(fake.rows["row-03"]["metadata"])["note"] == 3
        assert reindex(client, target, folder, progress=io.StringIO()).present == 6
    with pytest.raises(InvalidRequest, match="is both source and target"):
        reindex(client, client, folder)
    with pytest.raises(InvalidRequest, match="is not a folder"):
        reindex(client, target, tmp_path / "absent")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"do": "drop"}, "'do' 'drop' is not known; valid: prune, compact, backup, check_file, check_rows, rows"),
        ({"do": "prune"}, "prune needs 'camera', 'older_than'"),
        ({"do": "prune", "older_than": "yesterday"}, "ISO 8601"),
        ({"do": "prune", "camera": 3}, "'camera' must be a text"),
        ({"do": "prune", "camera": "1", "dry_run": "yes"}, "'dry_run' must be true or false"),
        ({"do": "rows", "after": -1}, "'after' must be a whole number"),
        ({"do": "rows", "count": 10**6}, "'count' must be 1 to 1000"),
        ({"do": "check_rows", "after": True}, "'after' must be a whole number"),
    ],
)
def test_a_wrong_request_is_refused_in_words(client, request_, message):
    with pytest.raises(InvalidRequest, match=message):
        client.admin(request_)
