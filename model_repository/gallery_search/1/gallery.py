"""The gallery: one SQLite file, one row a crop. Shared by gallery_search, gallery_write and gallery_info.

A row is durable before `write` returns (WAL, synchronous=FULL). Every transaction that changes rows takes the next
change number; a reader asks for what lies above the number it saw last, so it never sees half a transaction.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gallery_file import LOG, RESTORE, GalleryError, GalleryFile, checksum, is_damage
from gallery_row import Delete, Put, Update
from served_model import ServedModel

__all__ = ["Gallery", "GalleryError", "Rows", "Snapshot"]

ROWS_A_READ = 4096
NAMED = 20
READ = "SELECT number, checksum, id, image, camera, time, track, metadata, embedding, scores FROM crop"
PUT = """
INSERT INTO crop (id, image, camera, time, track, metadata, embedding, scores, checksum, change)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET image = excluded.image, camera = excluded.camera, time = excluded.time,
    track = excluded.track, metadata = excluded.metadata, embedding = excluded.embedding, scores = excluded.scores,
    checksum = excluded.checksum, change = excluded.change
"""
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Rows:
    """Rows that a reader has not seen.

    Attributes:
        numbers: names a row for good: a replaced row keeps it, and no other row ever gets it.
        ids: as given.
        cameras: empty for a row without one.
        times: ISO 8601, in UTC where a zone was given; None for a row without one.
        tracks: None for a row without one.
        metadata: the JSON object as given.
        embeddings: float32 [n, D].
        scores: float32 [n, N], 0..1.
    """

    numbers: tuple[int, ...]
    ids: tuple[str, ...]
    cameras: tuple[str, ...]
    times: tuple[str | None, ...]
    tracks: tuple[str | None, ...]
    metadata: tuple[str, ...]
    embeddings: np.ndarray
    scores: np.ndarray


class Snapshot:
    """One consistent state of the gallery, valid inside `Gallery.snapshot`."""

    def __init__(self, file: GalleryFile, model: ServedModel) -> None:
        """Read the change number of this state."""
        self._file = file
        self._model = model
        self._damaged: list[int] = []
        self.change = file.meta("change")

    def rows_after(self, change: int) -> Iterator[Rows]:
        """Rows written after `change`, a few thousand at a time; damaged ones are left out and named in the log."""
        try:
            cursor = self._file.connection.execute(f"{READ} WHERE change > ?", (change,))
            while rows := cursor.fetchmany(ROWS_A_READ):
                yield from self._intact(rows)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            # What was given already is given again.
            yield from self._rescued(change)

    def deleted_after(self, change: int) -> list[int]:
        """Numbers of the rows deleted after `change`, and of those found damaged; maybe of rows deleted before, too."""
        connection = self._file.connection
        if change >= self._file.meta("compacted_through"):
            rows = connection.execute("SELECT number FROM tombstone WHERE change > ?", (change,))
            return self._damaged + [number for (number,) in rows]
        # Tombstones that this reader has not seen are gone: whatever number has no row may have been one.
        present = {number for (number,) in connection.execute("SELECT number FROM crop")}
        return self._damaged + [number for number in range(1, last_number(self._file) + 1) if number not in present]

    def _intact(self, rows: Sequence[Row]) -> Iterator[Rows]:
        """The rows whose checksum is right, if any."""
        intact = []
        for number, written, *content in rows:
            if checksum(*content) == written:
                intact.append((number, *content))
            else:
                self._damaged.append(number)
                LOG.error("gallery %s: row %r is damaged and left out; %s", self._file.path.name, content[0], RESTORE)
        if not intact:
            return
        numbers, ids, _, cameras, times, tracks, metadata, embeddings, scores = zip(*intact, strict=True)
        yield Rows(
            numbers,
            ids,
            cameras,
            times,
            tracks,
            metadata,
            np.frombuffer(b"".join(embeddings), np.float32).reshape(-1, self._model.embedding_size),
            np.frombuffer(b"".join(scores), np.float32).reshape(-1, self._model.attribute_count),
        )

    def _rescued(self, change: int) -> Iterator[Rows]:
        """What can be read of a file with damaged pages; the rows on these are named in the log."""
        last, lost = last_number(self._file), list[int]()
        for first in range(1, last + 1, ROWS_A_READ):
            yield from self._intact(rows_between(self._file, first, min(first + ROWS_A_READ - 1, last), lost, change))
        self._damaged += lost
        ids = ids_of(self._file, lost) if lost else []
        LOG.error(
            "gallery %s has damaged pages; rows left out: %s; `descry verify` tells more; %s",
            self._file.path.name,
            ", ".join(map(repr, ids[:NAMED])) + f", of {len(ids)}" * (len(ids) > NAMED) or f"{len(lost)} without ids",
            RESTORE,
        )


def last_number(file: GalleryFile) -> int:
    """The greatest number that any row of the gallery ever had; 0 before the first."""
    return int(file.one("SELECT seq FROM sqlite_sequence WHERE name = 'crop'") or 0)


def rows_between(file: GalleryFile, first: int, last: int, lost: list[int], change: int = -1) -> list[Row]:
    """Columns of `READ` of the rows numbered `first` to `last` and written after `change`, damaged ones included.

    Where a page cannot be read, the range is halved until that page is alone; `lost` takes the numbers on it.
    """
    try:
        condition = "WHERE number BETWEEN ? AND ? AND change > ?"
        return file.connection.execute(f"{READ} {condition}", (first, last, change)).fetchall()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
    if first == last:
        lost.append(first)
        return []
    middle = (first + last) // 2
    halves = (first, middle), (middle + 1, last)
    return [row for half in halves for row in rows_between(file, *half, lost, change)]


def ids_of(file: GalleryFile, numbers: Collection[int]) -> list[str]:
    """Ids of rows, as far as the index of ids, which has pages of its own, can be read."""
    wanted, found = set(numbers), []
    try:
        for number, id in file.connection.execute("SELECT number, id FROM crop ORDER BY id"):
            found += [id] if number in wanted else []
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
    return found


class Gallery:
    """A connection to a gallery file, made if absent; for one thread at a time."""

    def __init__(self, path: Path, model: ServedModel) -> None:
        """Open the gallery of `model`.

        Raises:
            GalleryError: the file cannot be opened, is no gallery, or belongs to another model.
        """
        self.path = path
        self._model = model
        self._file = GalleryFile(path, model)
        self._connection = self._file.connection

    def write(self, operations: Sequence[Put | Update | Delete]) -> list[str]:
        """Carry out `operations` in order, in one transaction, durable on return.

        Returns:
            `added`, `replaced`, `updated`, `deleted` or `absent` for each.

        Raises:
            GalleryError: nothing was written (full disk, read-only file, ...).
        """
        if not operations:
            return []
        with self._file.writing() as change:
            return [self._apply(operation, change) for operation in operations]

    def version(self) -> int:
        """A number that changes when another connection commits."""
        with self._file.translated("read"):
            return int(self._file.one("PRAGMA data_version"))

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Read one consistent state."""
        with self._file.reading():
            yield Snapshot(self._file, self._model)

    def statistics(self) -> dict[str, Any]:
        """Rows, rows a camera, and first and last time (ISO 8601, UTC where a zone was given; None without times)."""
        with self._file.reading():
            try:
                counts = dict(self._connection.execute("SELECT camera, count(*) FROM crop GROUP BY camera").fetchall())
                first, last = self._connection.execute("SELECT min(time), max(time) FROM crop").fetchone()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                counts, first, last = self._counted()
        return {"rows": sum(counts.values()), "cameras": counts, "first_time": first, "last_time": last}

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that have no row, in the order given."""
        query = "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT id FROM crop) ORDER BY key"
        with self._file.translated("read"):
            return [id for (id,) in self._connection.execute(query, (json.dumps(list(ids)),))]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _counted(self) -> tuple[dict[str, int], str | None, str | None]:
        """Rows a camera, first and last time of what can be read of a damaged file."""
        columns: list[Row] = []
        for start in range(1, last_number(self._file) + 1, ROWS_A_READ):
            rows = rows_between(self._file, start, start + ROWS_A_READ - 1, [])
            columns += [(camera, time) for _, _, _, _, camera, time, *_ in rows]
        times = [time for _, time in columns if time is not None]
        return dict(Counter(camera for camera, _ in columns)), min(times, default=None), max(times, default=None)

    def _apply(self, operation: Put | Update | Delete, change: int) -> str:
        number = self._file.one("SELECT number FROM crop WHERE id = ?", (operation.id,))
        if isinstance(operation, Put):
            blobs = (operation.embedding.astype(np.float32).tobytes(), operation.scores.astype(np.float32).tobytes())
            self._put(operation, blobs, change)
            return "added" if number is None else "replaced"
        if number is None:
            return "absent"
        if isinstance(operation, Delete):
            self._connection.execute("DELETE FROM crop WHERE number = ?", (number,))
            self._connection.execute("INSERT INTO tombstone VALUES (?, ?)", (number, change))
            return "deleted"
        _, written, *content = self._connection.execute(f"{READ} WHERE number = ?", (number,)).fetchone()
        if checksum(*content) != written:
            # A new checksum would make a damaged row look whole.
            return "absent"
        self._put(operation, content[-2:], change)
        return "updated"

    def _put(self, row: Put | Update, blobs: Sequence[bytes], change: int) -> None:
        image, camera, time, track = row.texts
        content = (row.id, image, camera or "", time, track, row.metadata, *blobs)
        self._connection.execute(PUT, (*content, checksum(*content), change))
