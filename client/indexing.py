"""Fills a gallery from a folder of crops: resumes where it stopped, and one bad image never costs the rest."""

import csv
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from threading import Event
from typing import TextIO

from descry.client.errors import DeadlineExceeded, InvalidRequest, ServerFailed, ServerUnavailable
from descry.client.search import SearchClient

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
COLUMNS = ("camera", "person", "time", "track")
CHUNK = 1000  # ids per question to the server
LONGEST_ID = 512  # bytes, docs/wire.md
ATTEMPTS = 3
PAUSE = 1.0  # seconds before another attempt
FAILURES_IN_A_ROW = 32  # a full disk fails every image, a bad image fails alone

Labels = Mapping[str, Mapping[str, str]]


@dataclass
class IndexReport:
    """What became of a folder.

    Attributes:
        folder: the folder.
        found: images in it.
        present: images that had a row before.
        indexed: images written now.
        failed: the reason per image that could not be indexed.
        unused_labels: images that the labels name and the folder lacks.
        stopped: why indexing ended early; None when it went through.
    """

    folder: str
    found: int
    present: int = 0
    indexed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    unused_labels: list[str] = field(default_factory=list)
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every image of the folder now has a row."""
        return self.stopped is None and not self.failed


class Progress:
    """One line that says how far and how fast: rewritten in place on a terminal, else every ten seconds."""

    def __init__(self, total: int, stream: TextIO) -> None:
        """Start the clock; `total` counts images."""
        self.total, self.stream = total, stream
        self.end = "\r" if stream.isatty() else "\n"
        self.start = self.shown = time.monotonic()
        self.done = self.sent = 0

    def step(self, done: int = 1, sent: int = 1) -> None:
        """Count images that are done, and how many of them had to be sent."""
        self.done, self.sent = self.done + done, self.sent + sent
        if time.monotonic() - self.shown >= (0.2 if self.end == "\r" else 10):
            self.show(self.end)

    def show(self, end: str = "\n") -> None:
        """Print the line."""
        self.shown = time.monotonic()
        rate = self.sent / max(self.shown - self.start, 1e-9)
        print(f"{self.done}/{self.total} images, {rate:.0f} images/s  ", end=end, file=self.stream, flush=True)


def index_folder(
    client: SearchClient,
    folder: str | Path,
    *,
    labels: str | Path | None = None,
    in_flight: int = 32,
    progress: TextIO | None = None,
) -> IndexReport:
    """Give every image of a folder a row; the id is the path below the folder.

    Images that have a row are left alone, so the same call continues after any stop.

    Args:
        client: the server to write to.
        folder: searched with its subfolders for jpg, jpeg, png and webp.
        labels: a CSV file with a column `image` (path below the folder) and any of camera, person, time (ISO 8601) and
            track; other columns are ignored.
        in_flight: images sent at the same time.
        progress: where the progress line goes; None is stderr.

    Raises:
        InvalidRequest: no folder, no image in it, or unreadable labels.
        ServerUnavailable: no server answers at the start; a server lost later ends up in `IndexReport.stopped`.
    """
    root = Path(folder)
    images = find_images(root)
    metadata = read_labels(Path(labels)) if labels is not None else {}
    report = IndexReport(str(root), len(images), unused_labels=sorted(set(metadata) - set(images)))
    report.failed = {id: reason for id in images if (reason := _unfit(id))}
    wanted = [id for id in images if id not in report.failed]
    client.stats()
    line = Progress(len(images), progress or sys.stderr)
    line.step(len(report.failed), 0)
    pool = ThreadPoolExecutor(in_flight)
    try:
        for start in range(0, len(wanted), CHUNK):
            ids = wanted[start : start + CHUNK]
            missing = client.missing(ids)
            report.present += len(ids) - len(missing)
            line.step(len(ids) - len(missing), 0)
            _index_chunk(pool, client, root, missing, metadata, report, line)
    except (ServerUnavailable, DeadlineExceeded, ServerFailed) as error:
        report.stopped = str(error)
    finally:
        pool.shutdown(cancel_futures=True)
        line.show()
    return report


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
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if "image" not in (reader.fieldnames or ()):
                raise InvalidRequest(f"{path} has no column 'image'; its columns: {', '.join(reader.fieldnames or ())}")
            for row in reader:
                image = PurePosixPath(row["image"] or "").as_posix()
                if image in rows:
                    raise InvalidRequest(f"{path}, line {reader.line_num}: image {image!r} is named twice")
                rows[image] = {column: row[column] for column in COLUMNS if row.get(column)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"cannot read the labels {path}: {error}") from error
    return rows


def _index_chunk(
    pool: ThreadPoolExecutor,
    client: SearchClient,
    root: Path,
    ids: Sequence[str],
    metadata: Labels,
    report: IndexReport,
    line: Progress,
) -> None:
    """Send images concurrently and enter what became of each; raises the error that ends the whole run."""
    stop = Event()
    futures: dict[Future[str], str] = {
        pool.submit(_put, client, root / id, id, {"image": id, **metadata.get(id, {})}, stop): id for id in ids
    }
    ending: ServerUnavailable | DeadlineExceeded | ServerFailed | None = None
    failures = 0
    for future in as_completed(futures):
        if future.cancelled():
            continue
        error = future.exception()
        if error is None:
            report.indexed, failures = report.indexed + 1, 0
            line.step()
        elif isinstance(error, InvalidRequest | ServerFailed):
            report.failed[futures[future]] = str(error)
            failures = failures + 1 if isinstance(error, ServerFailed) else failures
            line.step()
        elif not isinstance(error, ServerUnavailable | DeadlineExceeded):
            raise error
        if isinstance(error, ServerUnavailable | DeadlineExceeded) or failures >= FAILURES_IN_A_ROW:
            ending = ending or error  # type: ignore[assignment]
            stop.set()
            for other in futures:
                other.cancel()
    if ending is not None:
        raise ending


def _put(client: SearchClient, path: Path, id: str, metadata: Mapping[str, str], stop: Event) -> str:
    """Index one image; a server that is away or full for a moment is asked again, as a put may be repeated."""
    for _ in range(ATTEMPTS - 1):
        try:
            return client.index(path, id, metadata)
        except (ServerUnavailable, DeadlineExceeded):
            if stop.wait(PAUSE):
                raise
    return client.index(path, id, metadata)


def _unfit(id: str) -> str | None:
    """Why a path cannot be an id; None when it can."""
    try:
        size = len(id.encode())
    except UnicodeEncodeError:
        return "the file name is not valid UTF-8; rename the file"
    return f"the path is {size} bytes long, more than {LONGEST_ID}; shorten it" if size > LONGEST_ID else None
