"""The SQLite file of a gallery: opened or made, brought to this version, its failures put into words."""

import logging
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from served_model import ServedModel

SCHEMA_VERSION = 2
BUSY_SECONDS = 30
RESTORE = "restore a backup (`descry restore BACKUP --gallery FILE`), or name a new file and index the images again"
NEXT_STEPS = {
    "malformed": f"the file is damaged: {RESTORE}",
    "not a database": f"the file is damaged, or no gallery: {RESTORE}",
    "locked": "another process holds the gallery; try again",
}
LOG = logging.getLogger("descry.gallery")

# What the checksum of a row covers, in this order; NULL and TEXT are told apart.
CONTENT = ("id", "image", "camera", "time", "track", "metadata", "embedding", "scores")
# A deleted row leaves its number only, which AUTOINCREMENT never gives out again.
TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crop (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, change INTEGER NOT NULL,
    image TEXT, camera TEXT NOT NULL, time TEXT, track TEXT, metadata TEXT NOT NULL,
    embedding BLOB NOT NULL, scores BLOB NOT NULL, checksum INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS crop_by_change ON crop (change);
CREATE INDEX IF NOT EXISTS crop_by_camera ON crop (camera, time);
CREATE TABLE IF NOT EXISTS tombstone (number INTEGER PRIMARY KEY, change INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS tombstone_by_change ON tombstone (change);
"""


class GalleryError(RuntimeError):
    """The gallery cannot be opened, read or written; the message names it and the next step."""


def checksum(*content: Any) -> int:
    """CRC-32 of what `CONTENT` names; values of other types than a row's give some number, and raise nothing."""
    return zlib.crc32(b"\xff".join(map(_as_bytes, content)))


def is_damage(error: BaseException) -> bool:
    """Whether SQLite met a page that makes no sense."""
    return isinstance(error, sqlite3.DatabaseError) and "malformed" in str(error)


class GalleryFile:
    """A connection to the gallery file of one model, made if absent; for one thread at a time.

    Attributes:
        path: the file.
        connection: begins no transaction by itself.
        writable: False for a truncated file, of which what remains can be read only.
    """

    def __init__(self, path: Path, model: ServedModel) -> None:
        """Open the file.

        Raises:
            GalleryError: the file cannot be opened, is no gallery, or belongs to another model.
        """
        self.path = path
        self.writable = True
        expected = {
            "schema_version": str(SCHEMA_VERSION),
            "model_digest": model.digest,
            "embedding_size": str(model.embedding_size),
            "attribute_count": str(model.attribute_count),
        }
        with self.translated("open"):
            path.parent.mkdir(parents=True, exist_ok=True)
            # isolation_level None: transactions are begun here, not guessed by the module.
            self.connection = sqlite3.connect(path, BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            # A text with a flipped bit may be no UTF-8: its row must reach the comparison of checksums.
            self.connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
            self.connection.create_function("row_checksum", len(CONTENT), checksum, deterministic=True)
            try:
                found = self._prepare(expected)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                found = self._open_truncated(error)
        self._refuse_other_model(expected, found)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def one(self, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
        """The first value of the first row; None without rows."""
        row = self.connection.execute(statement, parameters).fetchone()
        return row[0] if row else None

    def meta(self, key: str) -> int:
        """A number of the table `meta`."""
        value = str(self.one("SELECT value FROM meta WHERE key = ?", (key,)))
        if not value.isdecimal():
            raise sqlite3.DatabaseError(f"malformed table meta: {key} is {value!r}")
        return int(value)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One consistent state for all statements inside."""
        # Nothing is to be committed, and SQLite commits no transaction that met damage.
        with self.translated("read"), self._transaction("DEFERRED", "ROLLBACK"):
            yield

    @contextmanager
    def writing(self) -> Iterator[int]:
        """One transaction, durable at the end; gives its change number, which counts only if something changed."""
        # A truncated file refuses at the first change, so that what changes nothing is still answered.
        with self.translated("write"), self._transaction("IMMEDIATE" if self.writable else "DEFERRED"):
            change, before = self.meta("change") + 1, self.connection.total_changes
            yield change
            if self.connection.total_changes > before:
                self.connection.execute("UPDATE meta SET value = ? WHERE key = 'change'", (str(change),))

    @contextmanager
    def translated(self, action: str) -> Iterator[None]:
        """Turn what SQLite and the disk say into a `GalleryError`."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            where = self.path if action == "open" else self.path.name
            advice = "check the disk's free space and the file's rights"
            if not self.writable and "readonly" in str(error):
                advice = f"the file is damaged, and what remains can be read only: {RESTORE}"
            advice = next((step for words, step in NEXT_STEPS.items() if words in str(error)), advice)
            raise GalleryError(f"descry: cannot {action} gallery {where}: {reason}; {advice}") from error

    @contextmanager
    def _transaction(self, kind: str, end: str = "COMMIT") -> Iterator[None]:
        self.connection.execute(f"BEGIN {kind}")
        try:
            yield
            self.connection.execute(end)
        finally:
            # A full disk may have rolled back already.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def _prepare(self, expected: dict[str, str]) -> dict[str, str]:
        """Make the tables of a new file, bring an older one up to date, and return what `meta` says."""
        self._use_write_ahead_log()
        self.connection.executescript("PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;")
        with self._transaction("IMMEDIATE"):
            for statement in TABLES.split(";"):
                self.connection.execute(statement)
            found = self._meta()
            if not found:
                found = expected | {"change": "0", "compacted_through": "0"}
                self.connection.executemany("INSERT INTO meta VALUES (?, ?)", found.items())
            older = expected | {"schema_version": "1"}
            if older.items() <= found.items():
                self._add_checksums()
                found = self._meta()
        return found

    def _add_checksums(self) -> None:
        """Version 1 had rows without a checksum, and kept every tombstone."""
        LOG.warning("gallery %s: version 1 becomes %d: every row gets a checksum", self.path.name, SCHEMA_VERSION)
        self.connection.execute("ALTER TABLE crop ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0")
        # SQLite would not hand over a TEXT that is no UTF-8.
        values = ", ".join(name if name in ("embedding", "scores") else f"CAST({name} AS BLOB)" for name in CONTENT)
        self.connection.execute(f"UPDATE crop SET checksum = row_checksum({values})")
        self.connection.execute("INSERT INTO meta VALUES ('compacted_through', '0')")
        self.connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(SCHEMA_VERSION),))

    def _open_truncated(self, damage: sqlite3.DatabaseError) -> dict[str, str]:
        """Read what is left of a file that is shorter than its header says, and let nothing write to it.

        Raises:
            sqlite3.DatabaseError: `damage`, where more than the length is wrong.
        """
        self.writable = False
        # SQLite then takes the length that the file has; a write would give out lost pages a second time.
        self.connection.executescript("PRAGMA writable_schema = ON; PRAGMA query_only = ON;")
        try:
            found = self._meta()
        except sqlite3.DatabaseError as error:
            raise damage from error
        LOG.error("gallery %s is damaged: what remains is served, read only; %s", self.path.name, RESTORE)
        return found

    def _meta(self) -> dict[str, str]:
        return dict(self.connection.execute("SELECT key, value FROM meta").fetchall())

    def _use_write_ahead_log(self) -> None:
        """Let one connection write while others read; a new gallery's models open it at the same moment."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self.one("PRAGMA journal_mode = WAL")
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


def _as_bytes(value: Any) -> bytes:
    if value is None:
        return b"\xfe"
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return value if isinstance(value, bytes) else repr(value).encode()
