"""What can be indexed: a folder, a tar file, a CSV table, or the boxes that a detector found in a video."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from descry.client.errors import InvalidRequest
from descry.client.references import TAR, TarIndex, box_reference
from descry.client.video import Video

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
COLUMNS = ("camera", "person", "time", "track")


@dataclass(frozen=True)
class Crop:
    """One image: the id of its row, and the row's metadata, whose `image` is the reference below the source's root."""

    id: str
    metadata: Mapping[str, Any]

    @property
    def reference(self) -> str:
        """Where the image lies."""
        return str(self.metadata.get("image") or self.id)


@dataclass(frozen=True)
class Source:
    """A set of crops with an id each.

    Attributes:
        name: for messages.
        root: the folder that references are relative to.
        crops: read once, in an order in which the images can be read fast.
        count: of crops.
        failed: the reason for each image that has no crop.
        unused_labels: images that labels name and the source lacks.
    """

    name: str
    root: Path
    crops: Iterable[Crop]
    count: int
    failed: Mapping[str, str] = field(default_factory=dict)
    unused_labels: Sequence[str] = ()


def open_source(path: Path, labels: Path | None = None) -> Source:
    """The source that a path names: a folder, or a file that ends in .tar, .csv or .json.

    Raises:
        InvalidRequest: no such thing, or it cannot be read.
    """
    kinds = {TAR: tar_source, ".csv": table_source, ".json": boxes_source}
    if path.is_dir() or path.suffix.lower() not in kinds:
        if not path.is_dir() and path.exists():
            raise InvalidRequest(f"{path} is not a folder, nor a file that ends in {', '.join(kinds)}")
        return folder_source(path, labels)
    if labels is not None:
        raise InvalidRequest(f"--labels belong to a folder; {path.name} brings its own")
    return kinds[path.suffix.lower()](path)


def folder_source(folder: Path, labels: Path | None = None) -> Source:
    """Every image of a folder; the id is the path below it.

    Args:
        folder: searched with its subfolders for jpg, jpeg, png and webp.
        labels: a CSV file with a column `image` and any of camera, person, time and track; others are ignored.

    Raises:
        InvalidRequest: no folder, no image in it, or unreadable labels.
    """
    images = find_images(folder)
    metadata = read_labels(labels) if labels is not None else {}
    crops = [Crop(image, {"image": image, **metadata.get(image, {})}) for image in images]
    return Source(str(folder), folder, crops, len(crops), unused_labels=sorted(set(metadata) - set(images)))


def tar_source(path: Path) -> Source:
    """Every image of an uncompressed tar file; the id is `FILE.tar/MEMBER`.

    A member `MEMBER.json` beside `MEMBER.jpg` is the metadata of that image.

    Raises:
        InvalidRequest: no such file, or no image in it.
    """
    index = TarIndex(path)
    crops, failed = [], {path.name: index.damage} if index.damage else {}
    try:
        for member in index.members:
            image, described = PurePosixPath(member), PurePosixPath(member).with_suffix(".json").as_posix()
            if image.suffix.lower() not in SUFFIXES:
                continue
            reference = f"{path.name}/{member}"
            try:
                metadata = _metadata(described, index.read(described)) if described in index.members else {}
                crops.append(Crop(reference, metadata | {"image": reference}))
            except InvalidRequest as error:
                failed[reference] = str(error)
    finally:
        index.close()
    return _source_of(path, crops, failed)


def table_source(path: Path) -> Source:
    """Every line of a CSV file: `image`, a path below the file's folder, `id` if it is another, and metadata.

    Raises:
        InvalidRequest: not readable, no column `image`, or an id named twice.
    """
    crops: dict[str, Crop] = {}
    for line, row in _lines(path):
        image = PurePosixPath(row.pop("image") or "").as_posix()
        id = row.pop("id", "") or image
        if id in crops:
            raise InvalidRequest(f"{path}, line {line}: {id!r} is named twice")
        crops[id] = Crop(id, {"image": image, **{column: value for column, value in row.items() if value}})
    return _source_of(path, list(crops.values()), {})


def boxes_source(path: Path) -> Source:
    """Every box of a detector's JSON file (docs/client.md); the id is `VIDEO:FRAME:BOX`.

    Raises:
        InvalidRequest: not as the page says, or no such video.
    """
    content = _json(path)
    try:
        video = PurePosixPath(content["video"]).as_posix()
        head = {"camera": str(content["camera"])} if "camera" in content else {}
        times = _frame_times(content, path.parent / video) if "start" in content else None
        frames = sorted(
            ((int(frame["frame"]), frame["boxes"]) for frame in content["frames"]), key=lambda each: each[0]
        )
        crops = [
            _box_crop(video, number, index, box, head, times)
            for number, boxes in frames
            for index, box in enumerate(boxes)
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"{path} is not a file of boxes as docs/client.md says: {error!r}") from error
    if len({crop.id for crop in crops}) < len(crops):
        raise InvalidRequest(f"{path} names a frame twice")
    return _source_of(path, crops, {})


def find_images(folder: Path) -> list[str]:
    """Images below `folder` in sorted order, as paths relative to it with forward slashes.

    Raises:
        InvalidRequest: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InvalidRequest(f"{folder} is not a folder")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    images = sorted(path.relative_to(folder).as_posix() for path in found)
    if not images:
        raise InvalidRequest(f"{folder} holds no image ({', '.join(SUFFIXES)})")
    return images


def read_labels(path: Path) -> dict[str, dict[str, str]]:
    """Metadata per image from a CSV file; empty cells and unknown columns are left out.

    Raises:
        InvalidRequest: not readable, no column `image`, or an image named twice.
    """
    rows: dict[str, dict[str, str]] = {}
    for line, row in _lines(path):
        image = PurePosixPath(row["image"] or "").as_posix()
        if image in rows:
            raise InvalidRequest(f"{path}, line {line}: image {image!r} is named twice")
        rows[image] = {column: row[column] for column in COLUMNS if row.get(column)}
    return rows


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells by column of a CSV file with a column `image`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restkey="", restval="")
            if "image" not in (reader.fieldnames or ()):
                raise InvalidRequest(f"{path} has no column 'image'; its columns: {', '.join(reader.fieldnames or ())}")
            # What stands beyond the last column has no name.
            return [(reader.line_num, {name: cell for name, cell in row.items() if name}) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"cannot read {path}: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return _metadata(str(path), path.read_bytes())
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}") from error


def _metadata(name: str, content: bytes) -> dict[str, Any]:
    try:
        metadata = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{name} is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise InvalidRequest(f"{name} does not hold a JSON object")
    # The server takes texts for these; shards often hold numbers.
    return {key: str(value) if key in COLUMNS and value is not None else value for key, value in metadata.items()}


def _frame_times(content: Mapping[str, Any], video: Path) -> tuple[datetime, float]:
    """The time of frame 0, and frames a second: as stated, else the video's own."""
    start = datetime.fromisoformat(str(content["start"]).replace("Z", "+00:00"))
    if "fps" in content:
        rate = float(content["fps"])
    else:
        opened = Video(video)
        rate = opened.frames_per_second
        opened.close()
    if not 0 < rate < math.inf:
        raise ValueError(f"fps is {rate:g}")
    return start, rate


def _box_crop(
    video: str,
    frame: int,
    index: int,
    found: Mapping[str, Any],
    head: Mapping[str, str],
    times: tuple[datetime, float] | None,
) -> Crop:
    left, top, width, height = (float(value) for value in found["box"])
    right, bottom = math.ceil(left + width), math.ceil(top + height)
    left, top = math.floor(left), math.floor(top)
    metadata: dict[str, Any] = {"image": box_reference(video, frame, (left, top, right - left, bottom - top)), **head}
    if times is not None:
        metadata["time"] = (times[0] + timedelta(seconds=frame / times[1])).isoformat()
    if found.get("track") is not None:
        # A tracker counts anew in every video.
        metadata["track"] = f"{video}:{found['track']}"
    if found.get("score") is not None:
        metadata["score"] = float(found["score"])
    return Crop(f"{video}:{frame}:{index}", metadata)


def _source_of(path: Path, crops: Sequence[Crop], failed: Mapping[str, str]) -> Source:
    if not crops and not failed:
        raise InvalidRequest(f"{path} names no image ({', '.join(SUFFIXES)})")
    return Source(str(path), path.parent, crops, len(crops), failed)
