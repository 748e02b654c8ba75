"""Puts a backup in the place of a gallery file, on the server's machine, while no server has it open."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from descry.client.errors import InvalidRequest

# Where SQLite keeps the locks of a database (its file format, "locking"): whoever has it open holds a shared lock.
LOCKED_BYTES, LOCKS_START = 510, 0x40000002


@dataclass(frozen=True)
class Restored:
    """What a restore did: rows and model of the backup, and where the gallery before it lies, if there was one."""

    rows: int
    model_digest: str
    kept: Path | None


def restore(backup: Path, gallery: Path, repository: Path | None = None) -> Restored:
    """Check a backup and put a copy of it in the place of `gallery`; what lay there is kept beside it.

    Args:
        backup: as `descry backup` leaves it.
        gallery: the file that `descry serve` is given.
        repository: the model repository that will be served; its model must be the backup's.

    Raises:
        InvalidRequest: the backup is damaged or another model's, a server has the gallery open, or the disk is full.
    """
    rows, digest = _examine(backup)
    _refuse_another_model(backup, digest, gallery, repository)
    if gallery.exists() and backup.samefile(gallery):
        raise InvalidRequest(f"{backup} is the gallery itself")
    fresh = gallery.with_name(gallery.name + ".restoring")
    try:
        gallery.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(backup, fresh)
        with fresh.open("rb+") as stream:
            os.fsync(stream.fileno())
        kept = _keep(gallery) if gallery.exists() else None
        os.replace(fresh, gallery)
    except OSError as error:
        raise InvalidRequest(f"cannot restore {gallery}: {error.strerror or error}") from error
    finally:
        fresh.unlink(missing_ok=True)
    return Restored(rows, digest, kept)


def _examine(backup: Path) -> tuple[int, str]:
    """Rows and model digest of a sound backup."""
    if not backup.is_file():
        raise InvalidRequest(f"{backup} is not a file")
    try:
        with closing(sqlite3.connect(f"{backup.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise InvalidRequest(f"{backup} is damaged ({' '.join(verdict.split())}); take another backup")
            rows = connection.execute("SELECT count(*) FROM crop").fetchone()[0]
            digest = connection.execute("SELECT value FROM meta WHERE key = 'model_digest'").fetchone()
    except sqlite3.Error as error:
        raise InvalidRequest(f"{backup} is no backup of a gallery, or damaged ({error}); take another one") from error
    if digest is None:
        raise InvalidRequest(f"{backup} does not say which model it belongs to; take another backup")
    return int(rows), str(digest[0])


def _refuse_another_model(backup: Path, digest: str, gallery: Path, repository: Path | None) -> None:
    if repository is not None:
        try:
            fusion = json.loads((repository / "gallery_search" / "fusion.json").read_text(encoding="utf-8"))
            served = str(fusion["model_digest"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(f"{repository} is not an exported model repository: {error}") from error
        where = str(repository)
    else:
        found = _digest_of(gallery)
        if found is None:
            return
        where, served = str(gallery), found
    if served != digest:
        raise InvalidRequest(
            f"{backup} belongs to model {digest}, {where} to {served}; restore it to another file and serve its model"
        )


def _digest_of(gallery: Path) -> str | None:
    """The model of the gallery to be replaced; None where there is none, or it is too damaged to tell."""
    if not gallery.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{gallery.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'model_digest'").fetchone()
    except sqlite3.Error:
        return None
    return str(row[0]) if row else None


def _keep(gallery: Path) -> Path:
    """Give the gallery another name as well; at every moment one of the two names holds all of it."""
    import fcntl  # the server's machine has it

    with gallery.open("rb+") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCKED_BYTES, LOCKS_START)
        except OSError as error:
            raise InvalidRequest(f"a server has {gallery} open; stop it first") from error
    kept = gallery.with_name(f"{gallery.stem}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S%fZ}.replaced.sqlite")
    os.link(gallery, kept)
    log = gallery.with_name(gallery.name + "-wal")
    if log.exists():
        os.replace(log, kept.with_name(kept.name + "-wal"))
    gallery.with_name(gallery.name + "-shm").unlink(missing_ok=True)
    return kept
