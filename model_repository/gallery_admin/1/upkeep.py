"""What keeps a gallery in order while it is served. Each call is short, or lets searches and writes go on."""

import base64
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from gallery import Row, ids_of, last_number, rows_between
from gallery_file import GalleryFile, checksum, is_damage
from gallery_row import checked_put
from served_model import ServedModel

PRUNED_A_TRANSACTION = 1000
PRUNED_A_CALL = 10_000
CHECKED_A_CALL = 5000
LOST = "it lies on a damaged page"

Json = dict[str, Any]


class Upkeep:
    """A connection of its own to a gallery file; for one thread at a time. Every method raises `GalleryError`."""

    def __init__(self, path: Path, model: ServedModel) -> None:
        """Open the gallery of `model`."""
        self._file = GalleryFile(path, model)
        self._connection = self._file.connection
        self._model = model

    def prune(self, camera: str | None, older_than: str | None, dry_run: bool) -> Json:
        """Delete rows of a camera, with a time before `older_than`, or both; some thousand a call.

        Args:
            camera: None: of every camera.
            older_than: as `utc_time` gives it; None: whatever their time. A row without a time is never older.
            dry_run: count only.

        Returns:
            `deleted`, and `remaining`: how many the next call would find.
        """
        # Without its zone the limit comes before the same time with one, and is no later than the same without.
        limit = older_than and older_than.removesuffix("+00:00")
        conditions = {"camera = ?": camera, "time < ?": limit}
        given = {condition: value for condition, value in conditions.items() if value is not None}
        matching = " AND ".join(given)
        with self._file.reading():
            found = self._connection.execute(f"SELECT number FROM crop WHERE {matching}", (*given.values(),)).fetchall()
        deleted, called = 0, 0 if dry_run else min(len(found), PRUNED_A_CALL)
        for start in range(0, called, PRUNED_A_TRANSACTION):
            numbers = json.dumps([number for (number,) in found[start : min(start + PRUNED_A_TRANSACTION, called)]])
            # A row may have been replaced since: the condition is asked again.
            these = f"number IN (SELECT value FROM json_each(?)) AND {matching}"
            with self._file.writing() as change:
                self._connection.execute(
                    f"INSERT INTO tombstone SELECT number, ? FROM crop WHERE {these}",
                    (change, numbers, *given.values()),
                )
                removed = self._connection.execute(f"DELETE FROM crop WHERE {these}", (numbers, *given.values()))
                deleted += removed.rowcount
        return {"deleted": deleted, "remaining": len(found) - called}

    def compact(self) -> Json:
        """Drop the marks of deleted rows and write the file anew without its gaps; writers wait meanwhile."""
        before = self._bytes()
        with self._file.writing() as change:
            marks = self._connection.execute("DELETE FROM tombstone").rowcount
            if marks:
                # A reader that has seen less looks for itself which of its rows are gone.
                mark = "UPDATE meta SET value = ? WHERE key = 'compacted_through'"
                self._connection.execute(mark, (str(change - 1),))
        with self._file.translated("compact"):
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return {"marks": marks, "bytes_before": before, "bytes_after": self._bytes()}

    def check_file(self) -> Json:
        """Check the structure of the file, and that the rows counted three ways agree.

        Returns:
            `rows`, and `problems`: texts.
        """
        with self._file.reading():
            problems = self._structure()
            counts = [] if problems else [self._file.one(f"SELECT count(*) FROM crop {by}") for by in _COUNTED_BY]
            if len(set(counts)) > 1:
                problems.append(f"the table and its indices count {counts} rows")
            late = 0 if problems else self._file.one("SELECT max(change) FROM crop") or 0
            if late > (change := self._file.meta("change")):
                problems.append(f"a row was written at change {late}, after the last one, {change}")
        return {"rows": counts[0] if counts else None, "problems": problems}

    def check_rows(self, after: int) -> Json:
        """Decode every row of some thousand numbers from `after` on.

        Returns:
            `rows` looked at; `damaged`: `[{"id", "reason"}]`; `next`: the `after` of the next call, None at the end.
        """
        with self._file.reading():
            rows, damaged, following = self._page(after, CHECKED_A_CALL, None)
        faults = ((row[2], self._fault(row)) for row in rows)
        damaged += [{"id": str(id), "reason": reason} for id, reason in faults if reason]
        return {"rows": len(rows), "damaged": damaged, "next": following}

    def rows(self, after: int, until: int | None, count: int, vectors: bool) -> Json:
        """Rows of at most `count` numbers from `after` on, in the order of their numbers.

        Args:
            after: 0 at first, then `next` of the page before.
            until: the last number wanted, `until` of the first page, which leaves out what is added meanwhile.
            count: numbers, of which those of deleted rows have no row.
            vectors: with embedding and scores, base64 of little-endian float32.
        """
        with self._file.reading():
            until = last_number(self._file) if until is None else until
            rows, damaged, following = self._page(after, count, until)
        intact: list[Json] = []
        for row in rows:
            if reason := self._fault(row):
                damaged.append({"id": str(row[2]), "reason": reason})
                continue
            blobs = {"embedding": row[-2], "scores": row[-1]} if vectors else {}
            texts = {name: base64.b64encode(blob).decode() for name, blob in blobs.items()}
            intact.append({"id": row[2], "metadata": json.loads(row[-3]), **texts})
        return {"rows": intact, "damaged": damaged, "next": following, "until": until}

    def backup(self) -> Json:
        """Copy the gallery, as it is at one moment, to a new file beside it; searches and writes go on.

        Returns:
            `backup`: the file's name; `rows`; `bytes`.
        """
        path = self._file.path
        copy = path.with_name(f"{path.stem}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S%fZ}.backup.sqlite")
        partial = copy.with_name(copy.name + ".partial")
        try:
            with self._file.translated("back up"):
                partial.touch(0o600)
                shutil.copymode(path, partial)
                with closing(sqlite3.connect(partial, isolation_level=None)) as target:
                    # All in one step: a step after another would start again at every write.
                    self._connection.backup(target)
                    # In one file, complete in itself.
                    target.execute("PRAGMA journal_mode = DELETE")
                    (sound,) = target.execute("PRAGMA quick_check(1)").fetchone()
                    rows = target.execute("SELECT count(*) FROM crop").fetchone()[0]
                if sound != "ok":
                    raise sqlite3.DatabaseError(f"its copy is malformed ({' '.join(sound.split())})")
                _sync(partial)
                os.replace(partial, copy)
                _sync(copy.parent)
        finally:
            for left in (partial, partial.with_name(partial.name + "-journal")):
                left.unlink(missing_ok=True)
        return {"backup": copy.name, "rows": rows, "bytes": copy.stat().st_size}

    def _structure(self) -> list[str]:
        """What SQLite finds wrong with the file."""
        found: list[str] = []
        try:
            for (line,) in self._connection.execute("PRAGMA integrity_check(100)"):
                found += [] if line == "ok" else [" ".join(line.split())]
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            found.append(str(error))
        return found

    def _page(self, after: int, count: int, until: int | None) -> tuple[list[Row], list[Json], int | None]:
        """Rows of `count` numbers from `after` on, those that cannot be read, and where the next page starts."""
        end = last_number(self._file) if until is None else until
        last, lost = min(after + count, end), list[int]()
        rows = rows_between(self._file, after + 1, last, lost) if last > after else []
        ids = ids_of(self._file, lost) if lost else []
        damaged = [{"id": id, "reason": LOST} for id in ids]
        if lost and not ids:
            damaged = [{"id": f"number {number}", "reason": f"{LOST}, with its id"} for number in lost]
        return rows, damaged, last if last < end else None

    def _fault(self, row: Row) -> str | None:
        """What is wrong with a row; None when nothing is."""
        _, written, *content = row
        if checksum(*content) != written:
            return "its content does not fit its checksum"
        id, image, camera, time, track, metadata, *blobs = content
        try:
            put = checked_put(self._model, id, metadata, *(np.frombuffer(blob, np.float32) for blob in blobs))
        except ValueError as error:
            return str(error)
        expected = (put.texts[0], put.texts[1] or "", *put.texts[2:])
        return None if (image, camera, time, track) == expected else "its columns differ from its metadata"

    def _bytes(self) -> int:
        return sum(path.stat().st_size for path in _files(self._file.path))


# Each of these is counted on pages of its own.
_COUNTED_BY = ("NOT INDEXED", "INDEXED BY crop_by_camera", "INDEXED BY crop_by_change")


def _files(path: Path) -> Iterator[Path]:
    """The file and what lies in its write-ahead log."""
    return (each for each in (path, path.with_name(path.name + "-wal")) if each.exists())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
