"""A real server on a small disk: models that come, go and fail, slow and heavy callers, a full disk, a lost one."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from gallery import Gallery, GalleryError
from processes import memory_of, processes_of_server
from served_model import ServedModel
from test_server import photo
from tiny_models import ATTRIBUTES, ParHead, tiny_repository
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from descry.client import DescryError, InvalidRequest, SearchClient, ServerFailed
from descry.client.serve import TritonServer
from descry.client.serve_config import AuditSection, KeysSection

pytestmark = pytest.mark.server
DISK_MIB = 24
SLOW_BYTES, SLOW_SECONDS = 4096, 0.02


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of its own in a file; None where this account may not mount one."""
    image, disk = folder / "disk.img", folder / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_MIB * 2**20)
    commands = ["mkfs.ext4", "-q", "-O", "^has_journal", image], ["mount", "-o", "loop", image, disk]
    try:
        mounted = all(subprocess.run(command, capture_output=True).returncode == 0 for command in commands)
    except OSError:
        mounted = False
    try:
        yield disk if mounted else None
    finally:
        if mounted:
            # Lazily: a gallery that could not be opened may have its file open still.
            subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    with small_disk(tmp_path_factory.mktemp("disk")) as disk:
        yield disk


@pytest.fixture(scope="module")
def faulty(disk: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server with a repository and a disk of its own, and a key for its models."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "control").write_text("the-control-key")
    with TritonServer(
        tiny_repository(folder / "models"),
        (disk or folder) / "gallery.sqlite",
        grpc_port=0,
        metrics_port=0,
        log=folder / "triton.log",
        model_control=True,
        keys=KeysSection(control=folder / "control"),
        audit=AuditSection(file=folder / "audit.jsonl"),
    ) as server:
        yield server


@pytest.fixture
def client(faulty: TritonServer) -> Iterator[SearchClient]:
    with SearchClient(faulty.url, timeout=60) as connection:
        yield connection


@pytest.fixture
def control(faulty: TritonServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(faulty.url) as connection:
        yield connection


@pytest.fixture
def version(faulty: TritonServer) -> Iterator[Path]:
    """The folder of a second version of `par_head`, which is gone afterwards."""
    folder = faulty.config.server.repository / "par_head" / "2"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_version_that_does_not_load_leaves_the_old_one_serving(faulty, client, control, version):
    before = client.describe(photo(1)).scores
    version.mkdir()
    (version / "model.pt").write_bytes(b"no model")
    with pytest.raises(InferenceServerException, match="par_head"):
        control.load_model("par_head", headers=faulty.control_headers)
    np.testing.assert_array_equal(client.describe(photo(1)).scores, before)
    assert faulty.alive() and client.is_ready("par_head")
    shutil.rmtree(version)
    control.load_model("par_head", headers=faulty.control_headers)
    np.testing.assert_array_equal(client.describe(photo(1)).scores, before)


def test_versions_come_and_go_under_load_without_a_failed_request(faulty, client, control, version):
    torch.manual_seed(1)
    other = torch.jit.script(ParHead().eval())
    old = client.describe(photo(1)).scores
    ended, failures = threading.Event(), []

    def load(number: int) -> int:
        calls = 0
        with SearchClient(faulty.url, timeout=60) as caller:
            while not ended.is_set():
                try:
                    caller.describe(photo(number))
                    caller.match(photo(number), {"hat": "yes"})
                    caller.index(photo(number), f"load/{number}", {"camera": "load"})
                    caller.search({"hat": "yes"}, 1, cameras=["load"])
                except DescryError as error:
                    failures.append(str(error))
                calls += 4
        return calls

    with ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(load, number) for number in range(3)]
        try:
            for _ in range(2):
                version.mkdir()
                torch.jit.save(other, version / "model.pt", {"inputs.json": '[["float32", [24]]]'})
                control.load_model("par_head", headers=faulty.control_headers)
                assert np.abs(client.describe(photo(1)).scores - old).max() > 0.01
                shutil.rmtree(version)
                control.load_model("par_head", headers=faulty.control_headers)
                np.testing.assert_allclose(client.describe(photo(1)).scores, old, atol=1e-6)
        finally:
            ended.set()
        assert sum(caller.result() for caller in callers) > 0
    assert failures == []


class SlowLine:
    """Passes on what a client sends a few bytes at a time, and what it is answered as it comes."""

    def __init__(self, port: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._port = port
        self.url = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.sent = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        client, _ = self._server.accept()
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()
            while content := client.recv(SLOW_BYTES):
                server.sendall(content)
                self.sent += len(content)
                time.sleep(SLOW_SECONDS)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while content := server.recv(65_536):
                client.sendall(content)
        except OSError:
            return  # the client has hung up

    def close(self) -> None:
        self._server.close()


def test_a_slow_caller_is_answered_and_holds_nobody_up(faulty, client):
    image = photo(2, "PNG", size=(400, 900))
    image += bytes(400_000)
    expected = client.describe(image).scores
    line = SlowLine(faulty.grpc_port)
    half_open = [socket.create_connection(("127.0.0.1", faulty.grpc_port)) for _ in range(50)]
    try:
        for each in half_open:
            each.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0")  # and never the rest of the first frame
        with SearchClient(line.url, timeout=120) as slow, ThreadPoolExecutor(1) as pool:
            answer = pool.submit(slow.describe, image)
            meanwhile = 0
            while not answer.done():
                client.describe(photo(3))
                meanwhile += 1
            # Rounded otherwise where Triton batches it with another caller's: a batch of two has other kernels.
            np.testing.assert_allclose(answer.result().scores, expected, rtol=1e-5)
        assert line.sent > 400_000 and meanwhile > 3
    finally:
        for each in half_open:
            each.close()
        line.close()


def test_images_of_64_mib_are_refused_and_leave_no_memory_behind(faulty, client):
    heavy, processes = photo(4) + bytes(64 * 2**20), processes_of_server(faulty.grpc_port)
    before = memory_of(processes)[0]
    for _ in range(16):
        with pytest.raises(InvalidRequest, match=r"cannot decode image: 64.0 MiB, above this server's 32 MiB"):
            client.describe(heavy)
    # Kept are buffers: of Triton's for some messages, 450 MiB, and of the decoder's for one. A request: 192 MiB.
    assert memory_of(processes)[0] - before < 900
    assert client.describe(photo(4) + bytes(20 * 2**20)).scores.shape == (ATTRIBUTES,)


def distances(client: SearchClient) -> list[tuple[str, float]]:
    return [(hit.id, hit.distance) for hit in client.search({"gender": "female"}, 100, cameras=["kept"])]


def test_a_full_disk_fails_writes_in_words_and_nothing_else(faulty, client, disk):
    if disk is None:
        pytest.skip("a file system can be mounted by root only")
    for number in range(5):
        client.index(photo(number), f"kept/{number}", {"camera": "kept"})
    before, rows = distances(client), client.stats().rows
    with (disk / "filler").open("wb", buffering=0) as filler:
        with pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(bytes(2**20))
    big = {"camera": "full", "note": "x" * 60_000}
    written = []
    with pytest.raises(ServerFailed, match="cannot write gallery gallery.sqlite: .*check the disk's free space"):
        for number in range(200):  # the log's file may have room for some rows yet
            client.index(photo(number), f"full/{number}", big)
            written.append(f"full/{number}")
    assert distances(client) == before and client.stats().rows == rows + len(written)
    assert client.missing(written) == [] and faulty.alive()
    (disk / "filler").unlink()
    assert client.index(photo(1), "full/after", big) == "added"
    assert client.verify().damaged == {} and distances(client) == before


def test_a_disk_that_becomes_read_only_is_searched_on(faulty, client, disk):
    """As the kernel does with a disk that fails. The last test: nothing can be written afterwards."""
    if disk is None:
        pytest.skip("a file system can be mounted by root only")
    client.index(photo(1), "lost/1", {"camera": "lost"})
    before = distances(client)
    subprocess.run(["mount", "-o", "remount,abort", disk], check=True)
    for _ in range(3):
        with pytest.raises(ServerFailed, match="cannot write gallery gallery.sqlite: .*check the disk"):
            client.index(photo(2), "lost/2", {"camera": "lost"})
        with pytest.raises(ServerFailed, match="cannot write gallery"):
            client.delete(["lost/1"])
        assert distances(client) == before and client.missing(["lost/1", "lost/2"]) == ["lost/2"]
    assert faulty.alive()


def test_a_gallery_on_a_read_only_disk_is_not_opened_and_says_so(repository, tmp_path):
    model = ServedModel.load(repository)
    with small_disk(tmp_path) as disk:
        if disk is None:
            pytest.skip("a file system can be mounted by root only")
        Gallery(disk / "gallery.sqlite", model).close()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(GalleryError, match=r"descry: cannot open gallery .*gallery.sqlite: .*file's rights"):
            Gallery(disk / "gallery.sqlite", model)
