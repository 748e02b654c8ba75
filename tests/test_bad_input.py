"""What users really feed it, through the `descry` command and the real server: bad images, full disks, kills."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gallery import Gallery
from PIL import Image
from processes import children
from served_model import ServedModel

from descry.client import SearchClient
from descry.client.cli import main
from descry.client.serve import TritonServer

pytestmark = pytest.mark.server


def write_crops(root: Path, count: int, seed: int) -> list[str]:
    """Random JPEG crops; returns their ids."""
    root.mkdir()
    generator = np.random.default_rng(seed)
    ids = [f"{root.name}-{number:03}.jpg" for number in range(count)]
    for id in ids:
        Image.fromarray(generator.integers(0, 256, (40, 20, 3), np.uint8)).save(root / id)
    return ids


def start_server(repository: Path, folder: Path) -> TritonServer:
    server = TritonServer(repository, folder / "gallery.sqlite", grpc_port=0, http_port=0, metrics_port=0)
    server.start()
    return server


def process_of(command: str, server: TritonServer) -> int:
    """The process of this server whose command line holds `command`."""
    (keeper,) = [
        id for id, line in children(os.getpid()).items() if "triton_keeper" in line and port_of(server) in line
    ]
    (found,) = [id for id, line in children(keeper).items() if command in line]
    return found


def port_of(server: TritonServer) -> str:
    return f"--grpc-port={server.grpc_port} "


BAD_IMAGES = {
    "huge.png": "above 40 megapixels",
    "truncated.jpg": "image file is truncated",
    "text.jpg": "not one of JPEG, PNG, WEBP",
    "empty.png": "not one of JPEG, PNG, WEBP",
    "gif.jpg": "not one of JPEG, PNG, WEBP",
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty good crops, one of a single pixel among them, and five bad ones that sort between them."""
    root = tmp_path_factory.mktemp("bad") / "mixed"
    write_crops(root, 29, seed=0)
    Image.new("RGB", (1, 1), "#336699").save(root / "mixed-point.png")
    Image.new("1", (20_000, 20_000)).save(root / "huge.png")
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (256, 128, 3), np.uint8)).save(stream, "JPEG")
    (root / "truncated.jpg").write_bytes(stream.getvalue()[: -len(stream.getvalue()) // 4])
    (root / "text.jpg").write_text("no image at all\n")
    (root / "empty.png").write_bytes(b"")
    Image.new("RGB", (8, 16)).save(root / "gif.jpg", "GIF")
    for bad in BAD_IMAGES:
        (root / bad).rename(root / f"mixed-01-{bad}")
    return root


@pytest.mark.parametrize(("name", "reason"), BAD_IMAGES.items())
def test_a_bad_image_is_refused_by_every_command_that_takes_one(server, mixed, capsys, name, reason):
    path = str(mixed / f"mixed-01-{name}")
    for command in (["describe", path], ["similar", path], ["match", path, "hat=yes"]):
        assert main([*command, "--url", server.url]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"descry {command[0]}: cannot decode image: ") and reason in err
        assert len(err.splitlines()) == 1 and ".py" not in err


def test_an_image_of_one_pixel_is_described(server, mixed, capsys):
    assert main(["describe", str(mixed / "mixed-point.png"), "--json", "--url", server.url]) == 0
    assert all(0 <= score <= 1 for score in json.loads(capsys.readouterr().out)["scores"].values())


def test_bad_images_cost_only_themselves(server, mixed, tmp_path, capsys):
    report = tmp_path / "report.json"
    assert main(["index", str(mixed), "--report", str(report), "--url", server.url]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("30 of 35 images indexed (30 new, 0 before, 5 failed)")
    failed = json.loads(report.read_text())["failed"]
    assert {id.removeprefix("mixed-01-") for id in failed} == set(BAD_IMAGES)
    for name, reason in BAD_IMAGES.items():
        assert reason in failed[f"mixed-01-{name}"] and f"not indexed: mixed-01-{name}: " in err
    with SearchClient(server.url) as client:
        names = [path.name for path in mixed.iterdir()]
        assert set(client.missing(names)) == set(failed)


@pytest.fixture
def gallery_writer(server) -> Iterator[int]:
    """The process that writes the shared server's gallery; whatever limit it was given is lifted afterwards."""
    process_id = process_of("gallery_write/1/model.py", server)
    limits = resource.prlimit(process_id, resource.RLIMIT_FSIZE)
    yield process_id
    resource.prlimit(process_id, resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_stops_the_index_and_the_next_run_continues(server, gallery_writer, tmp_path, capsys):
    ids = write_crops(tmp_path / "full", 120, seed=2)
    command = ["index", str(tmp_path / "full"), "--in-flight", "4", "--url", server.url]
    hard = resource.prlimit(gallery_writer, resource.RLIMIT_FSIZE)[1]
    files = [path.stat().st_size for path in server.config.server.gallery.parent.glob("gallery.sqlite*")]
    resource.prlimit(gallery_writer, resource.RLIMIT_FSIZE, (max(files) + 200_000, hard))
    assert main([*command, "--report", str(tmp_path / "report.json")]) == 1
    out, err = capsys.readouterr()
    report = json.loads((tmp_path / "report.json").read_text())
    assert "stopped: " in err and "cannot write gallery gallery.sqlite" in err and "free space" in err
    assert "Traceback" not in err and out.startswith(f"{report['indexed']} of 120 images indexed")
    with SearchClient(server.url) as client:
        # What was acknowledged is there, what failed is not, and the rest can still be searched.
        assert len(client.missing(ids)) == 120 - report["indexed"] > 0
        assert set(report["failed"]) <= set(client.missing(ids))
        assert client.search({"hat": "yes"}, k=1)
    resource.prlimit(gallery_writer, resource.RLIMIT_FSIZE, (hard, hard))
    assert main(command) == 0
    assert capsys.readouterr().out.startswith(f"120 of 120 images indexed ({120 - report['indexed']} new")


def index_in_the_background(folder: Path, report: Path, url: str) -> subprocess.Popen[str]:
    """`descry index`, one image at a time, so that it is still at work when the server dies."""
    command = [sys.executable, "-m", "descry.client", "index", str(folder), "--in-flight", "1", "--url", url]
    return subprocess.Popen([*command, "--report", str(report)], stderr=subprocess.PIPE, text=True)


def wait_for_rows(client: SearchClient, rows: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while client.stats().rows < rows:
        assert time.monotonic() < deadline, f"fewer than {rows} rows after {seconds} s"
        time.sleep(0.02)


def test_a_server_killed_in_the_middle_of_an_index_loses_nothing(repository, tmp_path, capsys):
    ids = write_crops(tmp_path / "killed", 300, seed=3)
    report_file = tmp_path / "report.json"
    server = start_server(repository, tmp_path)
    try:
        assert main(["search", "hat=yes", "--url", server.url]) == 1
        assert "is empty; fill it with `descry index FOLDER`" in capsys.readouterr().err
        index = index_in_the_background(tmp_path / "killed", report_file, server.url)
        with SearchClient(server.url) as client:
            wait_for_rows(client, 10)
        os.kill(process_of("--model-repository", server), signal.SIGKILL)
        _, err = index.communicate(timeout=60)
    finally:
        server.stop()
    report = json.loads(report_file.read_text())
    assert index.returncode == 1 and "run the same command again to continue" in err and "Traceback" not in err
    assert 10 <= report["indexed"] < 300 and not report["failed"] and "descry serve" in report["stopped"]
    server = start_server(repository, tmp_path)
    try:
        with SearchClient(server.url) as client:
            # One image was in flight: it may have been written without the answer getting through.
            left = client.missing(ids)
            assert report["indexed"] <= 300 - len(left) <= report["indexed"] + 1
            assert main(["index", str(tmp_path / "killed"), "--url", server.url]) == 0
            assert capsys.readouterr().out.startswith(f"300 of 300 images indexed ({len(left)} new")
            assert client.stats().rows == 300 and {hit.id for hit in client.search({"hat": "yes"}, k=300)} == set(ids)
    finally:
        server.stop(seconds=0)


def test_serve_refuses_the_gallery_of_another_model(repository, tmp_path):
    gallery = tmp_path / "gallery.sqlite"
    Gallery(gallery, replace(ServedModel.load(repository), digest="another-digest")).close()
    ports = ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]
    command = [sys.executable, "-m", "descry.client", "serve", "--repository", str(repository)]
    refused = subprocess.run([*command, "--gallery", str(gallery), *ports], capture_output=True, text=True, timeout=90)
    assert refused.returncode == 1
    lines = refused.stderr.splitlines()
    refusal = lines[-1]
    assert "server:" in lines and ".py" not in refusal, refused.stderr
    assert refusal.startswith(f"descry serve: gallery {gallery} was indexed with another model (model_digest another")
    assert "index the images again" in refusal
