"""A folder into the gallery, against a server that speaks just enough of the wire."""

import io
import threading

import grpc
import pytest
from PIL import Image

from descry.client import (
    InvalidRequest,
    index_folder,
)
from descry.client import indexing as indexing_module
from descry.client.sources import read_labels


def test_index_a_folder_and_resume(fake, client, folder):
    progress = io.StringIO()
    report = index_folder(client, folder, progress=progress)
    assert (report.found, report.indexed, report.present, report.complete) == (6, 6, 0, True)
    assert set(fake.rows) == {path.relative_to(folder).as_posix() for path in folder.rglob("*.[jP]*")}
    assert "6/6 images" in progress.getvalue()
    sent = len(fake.requests)
    again = index_folder(client, folder, progress=io.StringIO())
    assert (again.indexed, again.present) == (0, 6)
    assert not [model for model, _ in fake.requests[sent:] if model == "index_image"]


def test_one_bad_image_never_costs_the_rest(client, folder):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 cut off")
    (folder / "empty.png").write_bytes(b"")
    (folder / ("x" * 250)).mkdir()
    long = folder / ("x" * 250) / ("y" * 250)
    long.mkdir()
    Image.new("RGB", (8, 8)).save(long / "deep_in_the_folders.jpg")
    report = index_folder(client, folder, progress=io.StringIO())
    assert report.indexed == 6 and report.stopped is None and not report.complete
    reasons = sorted(report.failed.values())
    assert reasons[:2] == ["cannot decode image", "cannot decode image"] and "512; shorten it" in reasons[2]


def test_a_server_that_dies_midway_stops_the_run_and_the_next_run_continues(fake, client, folder, monkeypatch):
    monkeypatch.setattr(indexing_module, "PAUSE", 0.05)
    dead = threading.Event()

    def die_after_two(model):
        if dead.is_set() or (model == "index_image" and len(fake.rows) >= 2):
            dead.set()
            return grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"
        return None

    fake.before = die_after_two
    report = index_folder(client, folder, in_flight=1, progress=io.StringIO())
    assert report.indexed == 2 == len(fake.rows) and not report.failed
    assert report.stopped is not None and "descry serve" in report.stopped
    fake.before = lambda model: None
    again = index_folder(client, folder, progress=io.StringIO())
    assert (again.present, again.indexed, again.complete) == (2, 4, True)


def test_a_server_that_is_full_for_a_moment_is_asked_again(fake, client, folder, monkeypatch):
    monkeypatch.setattr(indexing_module, "PAUSE", 0.01)
    seen: list[str] = []

    def full_once(model):
        seen.append(model)
        if seen.count("index_image") == 1 and model == "index_image":
            return grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size"
        return None

    fake.before = full_once
    assert index_folder(client, folder, in_flight=1, progress=io.StringIO()).indexed == 6


def test_a_server_that_fails_every_image_is_left(fake, client, folder, monkeypatch):
    monkeypatch.setattr(indexing_module, "FAILURES_IN_A_ROW", 3)
    full = (grpc.StatusCode.INTERNAL, "database or disk is full")
    fake.before = lambda model: full if model == "index_image" else None
    report = index_folder(client, folder, in_flight=1, progress=io.StringIO())
    assert 3 <= len(report.failed) <= 4 and "disk is full" in str(report.stopped)


def test_labels_are_checked(tmp_path, client, folder):
    labels = tmp_path / "labels.csv"
    labels.write_text("file,camera\na.jpg,1\n")
    with pytest.raises(InvalidRequest, match="no column 'image'; its columns: file, camera"):
        read_labels(labels)
    labels.write_text("image,camera\na.jpg,1\n./a.jpg,2\n")
    with pytest.raises(InvalidRequest, match="line 3: image 'a.jpg' is named twice"):
        read_labels(labels)
    labels.write_text("\ufeffimage,camera,time,hat\nred.jpg,1,,yes\nlost.jpg,2,2026-01-01T00:00:00,no\n")
    assert read_labels(labels)["red.jpg"] == {"camera": "1"}
    assert index_folder(client, folder, labels=labels, progress=io.StringIO()).unused_labels == ["lost.jpg"]


def test_folders_without_images_are_refused(tmp_path, client):
    with pytest.raises(InvalidRequest, match="is not a folder"):
        index_folder(client, tmp_path / "absent")
    with pytest.raises(InvalidRequest, match="holds no image"):
        index_folder(client, tmp_path)
