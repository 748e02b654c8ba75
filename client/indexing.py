"""Fills a gallery: resumes where it stopped, and one bad image never costs the rest."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any, TextIO

from descry.client.errors import DeadlineExceeded, InvalidRequest, ServerFailed, ServerUnavailable
from descry.client.images import ImageSource
from descry.client.progress import Progress
from descry.client.references import References
from descry.client.search import SearchClient
from descry.client.sources import Crop, Source, folder_source

CHUNK = 1000  # ids per question to the server
LONGEST_ID = 512  # bytes, docs/wire.md
ATTEMPTS = 3
PAUSE = 1.0  # seconds before another attempt
FAILURES_IN_A_ROW = 32  # a full disk fails every image, a bad image fails alone


@dataclass
class IndexReport:
    """What became of a source.

    Attributes:
        source: the folder or file.
        root: the folder that the image references are relative to.
        found: images in it.
        present: images that had a row before.
        indexed: images written now.
        failed: the reason per image that could not be indexed.
        unused_labels: images that the labels name and the folder lacks.
        stopped: why indexing ended early; None when it went through.
    """

    source: str
    root: str
    found: int
    present: int = 0
    indexed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    unused_labels: list[str] = field(default_factory=list)
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every image of the source now has a row."""
        return self.stopped is None and not self.failed


def index_folder(
    client: SearchClient,
    folder: str | Path,
    *,
    labels: str | Path | None = None,
    in_flight: int = 32,
    progress: TextIO | None = None,
) -> IndexReport:
    """Give every image of a folder a row; the id is the path below the folder. See `folder_source`, `index_source`."""
    source = folder_source(Path(folder), Path(labels) if labels is not None else None)
    return index_source(client, source, in_flight=in_flight, progress=progress)


def index_source(
    client: SearchClient, source: Source, *, in_flight: int = 32, progress: TextIO | None = None
) -> IndexReport:
    """Give every crop of a source a row.

    Crops that have a row are left alone, so the same call continues after any stop.

    Args:
        client: the server to write to.
        source: as `open_source` gives it.
        in_flight: images sent at the same time.
        progress: where the progress line goes; None is stderr.

    Raises:
        ServerUnavailable: no server answers at the start; a server lost later ends up in `IndexReport.stopped`.
    """
    report = IndexReport(source.name, str(source.root), source.count + len(source.failed))
    report.failed, report.unused_labels = dict(source.failed), list(source.unused_labels)
    client.stats()
    line = Progress(report.found, progress or sys.stderr)
    line.step(len(source.failed), 0)
    with References(source.root) as references:
        run = _Run(client, references, report, line, in_flight)
        try:
            for crops in _chunks(source.crops):
                run.index(crops)
        except (ServerUnavailable, DeadlineExceeded, ServerFailed) as error:
            report.stopped = str(error)
        finally:
            run.close()
            line.show()
    return report


class _Run:
    """Sends images concurrently and enters into the report what became of each."""

    def __init__(
        self, client: SearchClient, references: References, report: IndexReport, line: Progress, in_flight: int
    ) -> None:
        self._client, self._references, self._report, self._line = client, references, report, line
        self._pool = ThreadPoolExecutor(in_flight)
        self._most_pending = 2 * in_flight  # images in memory
        self._pending: dict[Future[str], Crop] = {}
        self._failures = 0
        self._stop = Event()

    def index(self, crops: list[Crop]) -> None:
        """Give each crop a row; raises the error that ends the whole run."""
        unfit = {crop.id: reason for crop in crops if (reason := _unfit(crop.id))}
        self._report.failed |= unfit
        missing = set(self._client.missing([crop.id for crop in crops if crop.id not in unfit]))
        self._report.present += len(crops) - len(unfit) - len(missing)
        self._line.step(len(crops) - len(missing), 0)
        for crop in crops:
            if crop.id in missing:
                self._send(crop)
        self._settle(0)

    def close(self) -> None:
        """End the threads."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _send(self, crop: Crop) -> None:
        try:
            image = self._references.image(crop.reference)
        except InvalidRequest as error:
            self._report.failed[crop.id] = str(error)
            self._line.step()
            return
        self._pending[self._pool.submit(_put, self._client, image, crop.id, crop.metadata, self._stop)] = crop
        self._settle(self._most_pending - 1)

    def _settle(self, most: int) -> None:
        """Wait until at most `most` images are under way."""
        while len(self._pending) > most:
            done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
            endings = [error for future in done if (error := self._enter(future, self._pending.pop(future)))]
            if endings:
                self._abandon()
                raise endings[0]

    def _enter(self, future: Future[str], crop: Crop) -> Exception | None:
        """Enter what became of one image; returns the error that ends the run, if it is one."""
        error = future.exception()
        if error is None:
            self._report.indexed, self._failures = self._report.indexed + 1, 0
        elif isinstance(error, InvalidRequest | ServerFailed):
            self._report.failed[crop.id] = str(error)
            self._failures += isinstance(error, ServerFailed)
        elif isinstance(error, ServerUnavailable | DeadlineExceeded):
            return error
        else:
            raise error
        self._line.step()
        return error if isinstance(error, ServerFailed) and self._failures >= FAILURES_IN_A_ROW else None

    def _abandon(self) -> None:
        """Take back what is not sent, and enter what is."""
        self._stop.set()
        sent = {future: crop for future, crop in self._pending.items() if not future.cancel()}
        self._pending.clear()
        for future, crop in sent.items():
            self._enter(future, crop)


def _chunks(crops: Iterable[Crop]) -> Iterator[list[Crop]]:
    left = iter(crops)
    while chunk := list(islice(left, CHUNK)):
        yield chunk


def _put(client: SearchClient, image: ImageSource, id: str, metadata: Mapping[str, Any], stop: Event) -> str:
    """Index one image; a server that is away or full for a moment is asked again, as a put may be repeated."""
    for _ in range(ATTEMPTS - 1):
        try:
            return client.index(image, id, metadata)
        except (ServerUnavailable, DeadlineExceeded):
            if stop.wait(PAUSE):
                raise
    return client.index(image, id, metadata)


def _unfit(id: str) -> str | None:
    """Why a path cannot be an id; None when it can."""
    try:
        size = len(id.encode())
    except UnicodeEncodeError:
        return "the file name is not valid UTF-8; rename the file"
    return f"the path is {size} bytes long, more than {LONGEST_ID}; shorten it" if size > LONGEST_ID else None
