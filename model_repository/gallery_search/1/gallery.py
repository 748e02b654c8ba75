"""The gallery: one SQLite file, one row a crop. Shared by gallery_search, gallery_write and gallery_info.

A row is durable before `write` returns (WAL, synchronous=FULL). Every transaction that changes rows takes the next
change number; a reader asks for what lies above the number it saw last, so it never sees half a transaction.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gallery_row import Delete, Put
from served_model import ServedModel

SCHEMA_VERSION = 1
BUSY_SECONDS = 30
ROWS_A_READ = 4096

# A deleted row leaves its number only, which AUTOINCREMENT never gives out again.
TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crop (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, change INTEGER NOT NULL,
    image TEXT, camera TEXT NOT NULL, time TEXT, track TEXT, metadata TEXT NOT NULL,
    embedding BLOB NOT NULL, scores BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS crop_by_change ON crop (change);
CREATE INDEX IF NOT EXISTS crop_by_camera ON crop (camera, time);
CREATE TABLE IF NOT EXISTS tombstone (number INTEGER PRIMARY KEY, change INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS tombstone_by_change ON tombstone (change);
"""
PUT = """
INSERT INTO crop (id, change, image, camera, time, track, metadata, embedding, scores)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET change = excluded.change, image = excluded.image, camera = excluded.camera,
    time = excluded.time, track = excluded.track, metadata = excluded.metadata, embedding = excluded.embedding,
    scores = excluded.scores
"""


class GalleryError(RuntimeError):
    """The gallery cannot be opened, read or written; the message names it and the next step."""


@dataclass(frozen=True)
class Rows:
    """Rows that a reader has not seen: their numbers, ids, cameras, metadata, float32 [n, D] and float32 [n, N]."""

    numbers: tuple[int, ...]
    ids: tuple[str, ...]
    cameras: tuple[str, ...]
    metadata: tuple[str, ...]
    embeddings: np.ndarray
    scores: np.ndarray


class Snapshot:
    """One consistent state of the gallery, valid inside `Gallery.snapshot`."""

    def __init__(self, connection: sqlite3.Connection, model: ServedModel) -> None:
        """Read the change number of this state."""
        self._connection = connection
        self._model = model
        self.change = int(connection.execute("SELECT value FROM meta WHERE key = 'change'").fetchone()[0])

    def rows_after(self, change: int) -> Iterator[Rows]:
        """Rows written after `change`, a few thousand at a time."""
        cursor = self._connection.execute(
            "SELECT number, id, camera, metadata, embedding, scores FROM crop WHERE change > ?", (change,)
        )
        while rows := cursor.fetchmany(ROWS_A_READ):
            numbers, ids, cameras, metadata, embeddings, scores = zip(*rows, strict=True)
            yield Rows(
                numbers,
                ids,
                cameras,
                metadata,
                np.frombuffer(b"".join(embeddings), np.float32).reshape(-1, self._model.embedding_size),
                np.frombuffer(b"".join(scores), np.float32).reshape(-1, self._model.attribute_count),
            )

    def deleted_after(self, change: int) -> list[int]:
        """Numbers of the rows deleted after `change`."""
        return [n for (n,) in self._connection.execute("SELECT number FROM tombstone WHERE change > ?", (change,))]


class Gallery:
    """A connection to a gallery file, made if absent; for one thread at a time."""

    def __init__(self, path: Path, model: ServedModel) -> None:
        """Open the gallery of `model`.

        Raises:
            GalleryError: the file cannot be opened, is no gallery, or belongs to another model.
        """
        self.path = path
        self._model = model
        expected = {
            "schema_version": str(SCHEMA_VERSION),
            "model_digest": model.digest,
            "embedding_size": str(model.embedding_size),
            "attribute_count": str(model.attribute_count),
        }
        with self._translated("open"):
            path.parent.mkdir(parents=True, exist_ok=True)
            # isolation_level None: transactions are begun here, not guessed by the module.
            self._connection = sqlite3.connect(path, BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._use_write_ahead_log()
            self._connection.executescript("PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;")
            with self._transaction("IMMEDIATE"):
                for statement in TABLES.split(";"):
                    self._connection.execute(statement)
                given = [*expected.items(), ("change", "0")]
                if not self._connection.execute("SELECT 1 FROM meta").fetchone():
                    self._connection.executemany("INSERT INTO meta VALUES (?, ?)", given)
            found = dict(self._connection.execute("SELECT key, value FROM meta").fetchall())
        self._refuse_other_model(expected, found)

    def write(self, operations: Sequence[Put | Delete]) -> list[str]:
        """Carry out `operations` in order, in one transaction, durable on return.

        Returns:
            `added`, `replaced`, `deleted` or `absent` for each.

        Raises:
            GalleryError: nothing was written (full disk, read-only file, ...).
        """
        if not operations:
            return []
        with self._translated("write"), self._transaction("IMMEDIATE"):
            change = int(self._one("SELECT value FROM meta WHERE key = 'change'")) + 1
            statuses = [self._apply(operation, change) for operation in operations]
            if set(statuses) != {"absent"}:
                self._connection.execute("UPDATE meta SET value = ? WHERE key = 'change'", (str(change),))
        return statuses

    def version(self) -> int:
        """A number that changes when another connection commits."""
        with self._translated("read"):
            return int(self._one("PRAGMA data_version"))

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Read one consistent state."""
        with self._translated("read"), self._transaction("DEFERRED"):
            yield Snapshot(self._connection, self._model)

    def statistics(self) -> dict[str, Any]:
        """Rows, rows a camera, and first and last time (ISO 8601, UTC where a zone was given; None without times)."""
        with self._translated("read"), self._transaction("DEFERRED"):
            cameras = self._connection.execute("SELECT camera, count(*) FROM crop GROUP BY camera").fetchall()
            first, last = self._connection.execute("SELECT min(time), max(time) FROM crop").fetchone()
        return {"rows": sum(n for _, n in cameras), "cameras": dict(cameras), "first_time": first, "last_time": last}

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that have no row, in the order given."""
        query = "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT id FROM crop) ORDER BY key"
        with self._translated("read"):
            return [id for (id,) in self._connection.execute(query, (json.dumps(list(ids)),))]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _one(self, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
        row = self._connection.execute(statement, parameters).fetchone()
        return row[0] if row else None

    def _apply(self, operation: Put | Delete, change: int) -> str:
        number = self._one("SELECT number FROM crop WHERE id = ?", (operation.id,))
        if isinstance(operation, Delete):
            if number is None:
                return "absent"
            self._connection.execute("DELETE FROM crop WHERE number = ?", (number,))
            self._connection.execute("INSERT INTO tombstone VALUES (?, ?)", (number, change))
            return "deleted"
        image, camera, time, track = operation.texts
        blobs = (operation.embedding.astype(np.float32).tobytes(), operation.scores.astype(np.float32).tobytes())
        values = (operation.id, change, image, camera or "", time, track, operation.metadata, *blobs)
        self._connection.execute(PUT, values)
        return "added" if number is None else "replaced"

    def _use_write_ahead_log(self) -> None:
        """Let one connection write while others read; a new gallery's models open it at the same moment."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._one("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # SQLite waits for a lock, but not for this one.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _refuse_other_model(self, expected: dict[str, str], found: dict[str, str]) -> None:
        different = [key for key, value in expected.items() if found.get(key) != value]
        if not different:
            return
        self.close()
        pairs = ", ".join(f"{key} {found.get(key)} instead of {expected[key]}" for key in different)
        raise GalleryError(
            f"descry: gallery {self.path} was indexed with another model ({pairs}): "
            "name another gallery file and index the images again, or serve the model it was made with"
        )

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        self._connection.execute(f"BEGIN {kind}")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            # A full disk may have rolled back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            where = self.path if action == "open" else self.path.name
            raise GalleryError(
                f"descry: cannot {action} gallery {where}: {reason}; check the disk's free space and the file's rights"
            ) from error
