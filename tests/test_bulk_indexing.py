"""Sources other than a folder: tar shards, tables, detected boxes; and the references that find their images again."""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from descry.client import InvalidRequest
from descry.client.cli import main
from descry.client.images import image_bytes, load_crop
from descry.client.indexing import index_source
from descry.client.references import References, box_reference
from descry.client.sources import open_source


def indexed(client, path: Path):
    return index_source(client, open_source(path), progress=io.StringIO())


def metadata_of(fake, id: str) -> dict:
    return json.loads(fake.rows[id]["metadata"])


def color_of(fake, id: str) -> str:
    """The fake server's upper colour is the mean colour of the photo it got."""
    return ("red", "green", "blue")[int(np.argmax(fake.rows[id]["scores"][1:4]))]


@pytest.fixture
def shard(tmp_path: Path, folder: Path) -> Path:
    """A tar file of the six photos; some have metadata beside them, one of it broken."""
    path = tmp_path / "shard-0001.tar"
    (folder / "red.json").write_text('{"camera": 3, "time": "2026-01-01T10:00:00", "weather": {"rain": true}}')
    (folder / "green.json").write_text("not JSON")
    with tarfile.open(path, "w") as tar:
        for member in sorted(folder.rglob("*")):
            if member.is_file():
                tar.add(member, f"./{member.relative_to(folder).as_posix()}")
    return path


def test_a_tar_shard_is_indexed_with_its_metadata_and_resumed(fake, client, shard):
    report = indexed(client, shard)
    assert (report.found, report.indexed) == (6, 5)
    assert list(report.failed) == ["shard-0001.tar/green.jpg"] and "not JSON" in str(report.failed)
    assert set(fake.rows) == {
        *(f"shard-0001.tar/{name}" for name in ("red.jpg", "blue.jpg")),
        *(f"shard-0001.tar/deeper/{color}.PNG" for color in ("red", "green", "blue")),
    }
    assert all(color_of(fake, id) in id for id in fake.rows)
    assert metadata_of(fake, "shard-0001.tar/red.jpg") == {
        "camera": "3",
        "time": "2026-01-01T10:00:00",
        "weather": {"rain": True},
        "image": "shard-0001.tar/red.jpg",
    }
    again = indexed(client, shard)
    assert (again.present, again.indexed) == (5, 0)


def test_a_shard_that_is_cut_off_gives_what_it_holds(fake, client, tmp_path):
    path = tmp_path / "cut.tar"
    noise = np.random.default_rng(0).integers(0, 256, (300, 100, 3), np.uint8)
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", "b.png"):
            content = image_bytes(Image.fromarray(noise))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    path.write_bytes(path.read_bytes()[: 512 + 90_000 + 40_000])
    report = indexed(client, path)
    assert set(fake.rows) == {"cut.tar/a.png"} and (report.found, report.indexed) == (3, 1)
    assert report.failed["cut.tar/b.png"] == "cut.tar is cut off within b.png"
    assert "cut off or damaged after 2 members" in report.failed["cut.tar"]


def test_a_compressed_shard_is_refused_in_words(tmp_path, client, folder):
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, "crops")
    with pytest.raises(InvalidRequest, match="it must be uncompressed"):
        indexed(client, path)
    path.rename(tmp_path / "shard.tar.gz")
    with pytest.raises(InvalidRequest, match="not a folder, nor a file that ends in .tar, .csv, .json"):
        indexed(client, tmp_path / "shard.tar.gz")


def write_table(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_table_of_paths_keeps_every_column_as_metadata(fake, client, folder):
    table = write_table(
        folder / "table.csv",
        {"image": "red.jpg", "id": "", "camera": "7", "weather": "rain"},
        {"image": "./deeper/blue.PNG", "id": "my own", "camera": "", "weather": ""},
        {"image": "lost.jpg", "id": "", "camera": "", "weather": ""},
        {"image": "../outside.jpg", "id": "", "camera": "", "weather": ""},
        {"image": "/etc/passwd", "id": "", "camera": "", "weather": ""},
    )
    report = indexed(client, table)
    assert set(fake.rows) == {"red.jpg", "my own"} and report.indexed == 2
    assert metadata_of(fake, "red.jpg") == {"image": "red.jpg", "camera": "7", "weather": "rain"}
    assert metadata_of(fake, "my own") == {"image": "deeper/blue.PNG"}
    assert "No such file" in report.failed["lost.jpg"]
    assert "lies outside" in report.failed["../outside.jpg"] and "lies outside" in report.failed["/etc/passwd"]


def test_a_table_that_cannot_be_read_is_named(client, folder):
    with pytest.raises(InvalidRequest, match="line 3: 'red.jpg' is named twice"):
        indexed(client, write_table(folder / "table.csv", {"image": "red.jpg"}, {"image": "./red.jpg"}))
    with pytest.raises(InvalidRequest, match="no column 'image'; its columns: file"):
        indexed(client, write_table(folder / "table.csv", {"file": "red.jpg"}))


def test_the_command_indexes_several_sources_and_reports_what_failed(fake, folder, shard, capsys, monkeypatch):
    monkeypatch.setenv("DESCRY_URL", fake.url)
    report = folder.parent / "report.json"
    assert main(["index", str(folder), str(shard), "--report", str(report)]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "6 of 6 images indexed (6 new, 0 before)",
        "5 of 6 images indexed (5 new, 0 before, 1 failed)",
    ]
    assert "6/6 images, " in err and "images/s" in err and "not indexed: shard-0001.tar/green.jpg: " in err
    content = json.loads(report.read_text())
    assert [source["complete"] for source in content["sources"]] == [True, False] and not content["complete"]
    assert list(content["sources"][1]["failed"]) == ["shard-0001.tar/green.jpg"]
    assert main(["index", str(shard), "--labels", str(report)]) == 1
    assert "--labels belong to a folder" in capsys.readouterr().err


COLORS = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Twelve frames of 64 x 48 pixels; the left half of frame n has colour n % 3, the right half that of n + 1."""
    av = pytest.importorskip("av")
    path = tmp_path / "door.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        for number in range(12):
            pixels = np.zeros((48, 64, 3), np.uint8)
            pixels[:, :32], pixels[:, 32:] = COLORS[number % 3], COLORS[(number + 1) % 3]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_boxes(video: Path, frames: list[dict], **head: object) -> Path:
    path = video.with_name("boxes.json")
    path.write_text(json.dumps({"video": video.name, "frames": frames, **head}))
    return path


def test_the_boxes_of_a_video_become_rows_with_camera_time_and_track(fake, client, video):
    left, right = {"box": [2, 2, 20.5, 40], "track": 4, "score": 0.5}, {"box": [40, 0, 100, 100]}
    frames = [{"frame": number, "boxes": [left, right]} for number in (11, 0, 4)]
    boxes = write_boxes(video, frames, camera=3, start="2026-01-01T10:00:00+01:00", fps=4)
    report = indexed(client, boxes)
    assert report.indexed == 6 and report.complete
    names = ("red", "green", "blue")
    for number in (0, 4, 11):
        assert color_of(fake, f"door.mp4:{number}:0") == names[number % 3]
        assert color_of(fake, f"door.mp4:{number}:1") == names[(number + 1) % 3]
    assert metadata_of(fake, "door.mp4:11:0") == {
        "image": "door.mp4#frame=11&xywh=2,2,21,40",
        "camera": "3",
        "time": "2026-01-01T10:00:02.750000+01:00",
        "track": "door.mp4:4",
        "score": 0.5,
    }
    assert set(metadata_of(fake, "door.mp4:4:1")) == {"image", "camera", "time"}
    assert indexed(client, boxes).present == 6


def test_boxes_that_show_nothing_fail_alone(fake, client, video):
    frames = [
        {"frame": 1, "boxes": [{"box": [100, 0, 10, 10]}, {"box": [0, 0, 10, 10]}]},
        {"frame": 40, "boxes": [{"box": [0, 0, 9, 9]}]},
    ]
    report = indexed(client, write_boxes(video, frames))
    assert report.indexed == 1 and "outside the frame, which has 64 x 48 pixels" in report.failed["door.mp4:1:0"]
    assert report.failed["door.mp4:40:0"] == "door.mp4 ends before frame 40"
    assert "time" not in metadata_of(fake, "door.mp4:1:1")


def test_a_video_that_is_none_or_damaged_is_named(fake, client, video):
    frames = [{"frame": number, "boxes": [{"box": [0, 0, 9, 9]}]} for number in range(12)]
    boxes = write_boxes(video, frames)
    whole = video.read_bytes()
    video.write_bytes(b"no video" * 100)
    assert "cannot read the video" in indexed(client, boxes).failed["door.mp4:0:0"]
    video.unlink()
    assert "cannot read the video" in indexed(client, boxes).failed["door.mp4:0:0"]
    start = whole.index(b"mdat")
    video.write_bytes(whole[: start + 300] + bytes(len(whole) // 3) + whole[start + 300 + len(whole) // 3 :])
    report = indexed(client, boxes)
    assert report.stopped is None and report.indexed + len(report.failed) == 12


def test_the_video_tells_its_own_rate(fake, client, video):
    indexed(client, write_boxes(video, [{"frame": 5, "boxes": [{"box": [0, 0, 9, 9]}]}], start="2026-01-01T10:00:00Z"))
    assert metadata_of(fake, "door.mp4:5:0")["time"] == "2026-01-01T10:00:01+00:00"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ('{"frames": []}', "KeyError\\('video'\\)"),
        ('{"video": "door.mp4", "frames": [{"frame": 0, "boxes": [{"box": [1, 2, 3]}]}]}', "not a file of boxes"),
        ('{"video": "door.mp4", "frames": []}', "names no image"),
        ('{"video": "door.mp4", "frames": [{"frame": 0, "boxes": []}], "start": "noon", "fps": 5}', "noon"),
        (
            '{"video": "v", "frames": [{"frame": 0, "boxes": [{"box": [0,0,1,1]}]}, '
            '{"frame": 0, "boxes": [{"box": [0,0,2,2]}]}]}',
            "names a frame twice",
        ),
    ],
)
def test_a_file_of_boxes_that_is_wrong_is_named(tmp_path, client, content, message):
    path = tmp_path / "boxes.json"
    path.write_text(content)
    with pytest.raises(InvalidRequest, match=message):
        indexed(client, path)


def test_a_reference_finds_its_image_again(video, shard, folder):
    with References(video.parent) as references:
        frame = references.image(box_reference("door.mp4", 7, (0, 0, 8, 8)))
        earlier = references.image(box_reference("door.mp4", 2, (0, 0, 8, 8)))
        assert [image.size for image in (frame, earlier)] == [(8, 8), (8, 8)]
        assert np.argmax(np.asarray(frame).mean((0, 1))) == 1 and np.argmax(np.asarray(earlier).mean((0, 1))) == 2
        assert references.image("shard-0001.tar/deeper/blue.PNG") == (folder / "deeper" / "blue.PNG").read_bytes()
        assert references.image("crops/red.jpg") == folder / "red.jpg"
        with pytest.raises(InvalidRequest, match="holds no lost.jpg"):
            references.image("shard-0001.tar/lost.jpg")
    for reference in ("../x.jpg", "/etc/passwd", "a/../../b.jpg", "", "../door.mp4#frame=1&xywh=0,0,1,1"):
        with pytest.raises(InvalidRequest, match="lies outside"), References(video.parent) as references:
            references.image(reference)


def test_a_hit_of_a_shard_or_a_video_can_be_shown(video, shard):
    assert load_crop(video.parent, "shard-0001.tar/red.jpg").size == (64, 128)
    assert load_crop(video.parent, "door.mp4#frame=3&xywh=0,0,20,40").size == (20, 40)
