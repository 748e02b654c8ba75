"""The life of a gallery behind the real server: what other processes write, batches, upkeep and damage."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from gallery import Gallery
from gallery_row import checked_put
from PIL import Image
from served_model import ServedModel
from test_gallery import MODULES
from tiny_models import ATTRIBUTES, EMBEDDING

from descry.client import GalleryEmpty, SearchClient, ServerFailed
from descry.client.audit import check_audit
from descry.client.cli import main
from descry.client.serve import TritonServer

pytestmark = pytest.mark.server
HERE = "life-"  # the gallery is shared: these tests look only at cameras that begin so


@pytest.fixture(scope="module")
def client(server: TritonServer) -> Iterator[SearchClient]:
    with SearchClient(server.url, timeout=60) as connection:
        yield connection


@pytest.fixture
def descry(server, monkeypatch, capsys):
    monkeypatch.setenv("DESCRY_URL", server.url)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def gallery_of(server: TritonServer) -> Path:
    return server.config.server.gallery


def photo(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 32, 3), np.uint8))


def found(client: SearchClient, camera: str) -> dict[str, dict]:
    """Metadata by id of all rows of a camera."""
    try:
        hits = client.search({"gender": "female"}, k=10_000, cameras=[HERE + camera])
    except GalleryEmpty:
        return {}
    return {hit.id: dict(hit.metadata) for hit in hits}


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
from gallery import Gallery
from gallery_row import Delete, checked_put
from served_model import ServedModel
model = ServedModel.load(Path(sys.argv[2]))
gallery = Gallery(Path(sys.argv[3]), model)
vectors = np.eye(1, %d, dtype=np.float32)[0], np.full(%d, 0.5, np.float32)
for line in sys.stdin:
    names, camera = line.split(), '{"camera": "life-other"}'
    rows = [checked_put(model, name[1:], camera, *vectors) if name[0] == "+" else Delete(name[1:]) for name in names]
    gallery.write(rows)
    print("done", flush=True)
"""


def test_searches_see_what_another_process_wrote_at_once(client, server, repository):
    """A second server on the same gallery is such a process: both open the file as this one does."""
    command = [sys.executable, "-c", WRITER % (EMBEDDING, ATTRIBUTES), str(MODULES), str(repository)]
    writer = subprocess.Popen(
        [*command, str(gallery_of(server))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdin is not None and writer.stdout is not None
    try:
        for written, expected in [("+a +b", {"a", "b"}), ("-a +c +d", {"b", "c", "d"}), ("-b -c -d", set())]:
            writer.stdin.write(written + "\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "done\n"
            assert set(found(client, "other")) == expected
    finally:
        writer.kill()
        writer.communicate()


def test_two_servers_share_one_gallery(client, server, repository, tmp_path):
    """Both write and search at once; each sees what the other acknowledged, and their lines make one audit chain."""
    audit, count = server.config.audit_file, 12

    def write(to: SearchClient, name: str) -> None:
        for number in range(count):
            to.index(photo(number), f"{name}/{number}", {"camera": f"{HERE}shared"})

    with (
        TritonServer(
            repository, gallery_of(server), grpc_port=0, metrics_port=0, log=tmp_path / "triton.log"
        ) as second,
        SearchClient(second.url, timeout=60) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        assert second.config.audit_file == audit
        list(pool.map(write, (client, other), ("first", "second")))
        rows = {f"{name}/{number}" for name in ("first", "second") for number in range(count)}
        assert set(found(client, "shared")) == set(found(other, "shared")) == rows
        assert set(other.delete([f"first/{number}" for number in range(count)]).values()) == {"deleted"}
        assert set(found(client, "shared")) == {f"second/{number}" for number in range(count)}
        assert client.update({"second/0": {"camera": f"{HERE}elsewhere"}}) == {"second/0": "updated"}
        assert "second/0" in found(other, "elsewhere") and "second/0" not in found(other, "shared")
        assert not client.verify().problems and not other.verify().problems
    assert not check_audit(audit).problems
    assert set(found(client, "shared")) == {f"second/{number}" for number in range(1, count)}
    client.delete([f"second/{number}" for number in range(count)])


def test_updates_and_deletions_go_in_batches(client):
    for number in range(3):
        client.index(photo(number), f"batch/{number}", {"camera": f"{HERE}batch", "number": number})
    before = client.search({"gender": "female"}, cameras=[f"{HERE}batch"])
    changed = {f"batch/{number}": {"camera": f"{HERE}moved", "note": "ü"} for number in (0, 2, 5)}
    assert client.update(changed) == {"batch/0": "updated", "batch/2": "updated", "batch/5": "absent"}
    assert set(found(client, "batch")) == {"batch/1"}
    assert found(client, "moved")["batch/0"] == {"camera": f"{HERE}moved", "note": "ü"}
    after = client.search({"gender": "female"}, cameras=[f"{HERE}batch", f"{HERE}moved"])
    assert [(hit.id, hit.distance) for hit in after] == [(hit.id, hit.distance) for hit in before]
    absent = [f"nobody/{number}" for number in range(2500)]
    answers = client.delete([*changed, "batch/1", *absent])
    assert [answers[id] for id in ("batch/0", "batch/1", "batch/2", "batch/5")] == ["deleted"] * 3 + ["absent"]
    assert len(answers) == 2504 and not found(client, "moved")


def test_prune_compact_backup_and_restore(client, descry, server, tmp_path):
    for number in range(4):
        client.index(
            photo(number), f"old/{number}", {"camera": f"{HERE}old", "time": f"2020-01-0{number + 1}T00:00:00"}
        )
    prune = ("prune", "--camera", f"{HERE}old", "--older-than", "2020-01-03")
    assert descry(*prune, "--dry-run")[:2] == (0, "2 rows would be deleted\n")
    assert descry(*prune)[:2] == (0, "2 rows deleted\n")
    assert set(found(client, "old")) == {"old/2", "old/3"}
    code, name, _ = descry("backup")
    backup = gallery_of(server).parent / name.strip()
    assert code == 0 and backup.is_file()
    assert descry("compact")[0] == 0 and set(found(client, "old")) == {"old/2", "old/3"}
    assert descry("prune", "--camera", f"{HERE}old")[1] == "2 rows deleted\n"
    code, _, err = descry("restore", backup, "--gallery", gallery_of(server))
    assert code == 1 and "a server has" in err and "stop it first" in err
    assert descry("restore", backup, "--gallery", tmp_path / "restored.sqlite")[0] == 0
    with closing(sqlite3.connect(tmp_path / "restored.sqlite")) as restored:
        ids = {id for (id,) in restored.execute("SELECT id FROM crop WHERE camera = ?", (f"{HERE}old",))}
    assert ids == {"old/2", "old/3"}
    backup.unlink()


def test_pages_hold_every_row_with_what_the_models_said(client):
    client.index(photo(7), "paged", {"camera": f"{HERE}paged", "free": [1, None]})
    described = client.describe(photo(7))
    pages = list(client.pages(rows=3))
    assert sum(len(page.ids) for page in pages) == client.stats().rows
    page = next(page for page in pages if "paged" in page.ids)
    row = page.ids.index("paged")
    assert page.metadata[row] == {"camera": f"{HERE}paged", "free": [1, None]}
    np.testing.assert_allclose(page.embeddings[row], described.embedding, atol=1e-5)
    np.testing.assert_allclose(page.scores[row], described.scores, atol=1e-5)


def test_a_damaged_row_is_left_out_named_and_can_be_replaced(client, descry, server):
    for number in range(2):
        client.index(photo(number), f"damaged/{number}", {"camera": f"{HERE}damaged"})
    assert descry("verify")[0] == 0
    with closing(sqlite3.connect(gallery_of(server))) as vandal:
        vandal.execute("UPDATE meta SET value = value + 1 WHERE key = 'change'")
        (change,) = vandal.execute("SELECT value FROM meta WHERE key = 'change'").fetchone()
        vandal.execute(
            "UPDATE crop SET scores = zeroblob(?), change = ? WHERE id = 'damaged/0'", (4 * ATTRIBUTES, change)
        )
        vandal.commit()
    assert set(found(client, "damaged")) == {"damaged/1"}
    code, out, _ = descry("verify", "--json")
    content = json.loads(out)
    assert code == 1 and list(content["damaged"]) == ["damaged/0"] and content["problems"] == []
    assert "row 'damaged/0' is damaged and left out" in server.log.read_text()
    assert client.update({"damaged/0": {}}) == {"damaged/0": "absent"}
    assert client.index(photo(0), "damaged/0", {"camera": f"{HERE}damaged"}) == "replaced"
    assert set(found(client, "damaged")) == {"damaged/0", "damaged/1"} and descry("verify")[0] == 0


def test_a_server_starts_on_what_remains_of_a_gallery(repository, tmp_path):
    path, model = tmp_path / "gallery.sqlite", ServedModel.load(repository)
    gallery, generator = Gallery(path, model), np.random.default_rng(0)
    vectors = [
        (generator.normal(size=EMBEDDING).astype(np.float32), generator.random(ATTRIBUTES).astype(np.float32))
        for _ in range(1000)
    ]
    gallery.write([checked_put(model, f"{number}", "{}", *each) for number, each in enumerate(vectors)])
    gallery.close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with TritonServer(repository, path, grpc_port=0, metrics_port=0, log=tmp_path / "triton.log") as server:
        with SearchClient(server.url, timeout=60) as client:
            hits = client.search({"gender": "female"}, k=1000)
            # The row that the file was cut in is there, but damaged.
            assert 0 < client.stats().rows - 1 <= len(hits) < 1000
            for hit in hits:
                np.testing.assert_array_equal(hit.scores, vectors[int(hit.id)][1])
            with pytest.raises(ServerFailed, match="the file is damaged.*restore a backup"):
                client.index(photo(0), "new")
            checked = client.verify()
            assert checked.problems and checked.damaged and checked.rows >= len(hits)
            with pytest.raises(ServerFailed, match="cannot back up gallery gallery.sqlite"):
                client.backup()
    log = (tmp_path / "triton.log").read_text()
    assert "what remains is served, read only" in log and "rows left out: " in log
