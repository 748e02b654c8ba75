"""The audit log: one JSON line a call, each with the hash of the line before. Importable without a server.

A line is durable before `append` returns. A lock file beside it orders the processes that share it. A line is
`{"number": …, "time": …, …, "previous": HASH, "hash": HASH}`; its own hash is the SHA-256 of the line without `hash`.
The chain shows what was changed afterwards; someone who may write the file can forge the chain from there on, so keep
its last hash elsewhere from time to time (docs/security.md).
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FIRST_HASH = "0" * 64
BLOCK_BYTES = 65_536


class AuditError(RuntimeError):
    """The audit log cannot be written, so that no call may be answered."""


@dataclass(frozen=True)
class Tail:
    """The end of the chain, and the file in which it was found."""

    number: int = 0
    hash: str = FIRST_HASH
    file: tuple[int, int] = (0, 0)


class AuditLog:
    """An append-only file; for one thread at a time, and any number of processes."""

    def __init__(self, path: Path, rotate_bytes: int) -> None:
        """Write to `path`; from `rotate_bytes` on, the file is renamed to `path.1`, `path.2`, … and a new one begun."""
        self.path = path
        self._rotate_bytes = rotate_bytes
        self._tail = Tail()

    def append(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Add one line an entry, durable on return; all of them or none.

        Raises:
            AuditError: nothing was added (full disk, rights, ...).
        """
        if not entries:
            return
        try:
            with self._locked(), self._opened() as file:
                tail, torn = self._end_of(file)
                entries = [*([{"action": "repaired", "fragment": torn}] if torn else []), *entries]
                time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
                number, previous, lines = tail.number, tail.hash, b""
                for entry in entries:
                    number += 1
                    line, previous = chained({"number": number, "time": time, **entry}, previous)
                    lines += line
                self._write(file, lines)
                self._tail = Tail(number, previous, _identity(file))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise AuditError(
                f"the audit log {self.path.name} cannot be written ({reason}), so nothing is answered: "
                "check the disk's free space and the file's rights"
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A file of its own: the log itself is renamed when it is full.
        lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The log's file, a new one where there is none or it is full."""
        if self.path.exists() and self.path.stat().st_size >= self._rotate_bytes:
            before = rotated(self.path)
            self.path.rename(f"{self.path}.{int(before[-1].suffix[1:]) + 1 if before else 1}")
        new = not self.path.exists()
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            if new:
                _make_durable(self.path.parent)
            yield file
        finally:
            os.close(file)

    def _end_of(self, file: int) -> tuple[Tail, str]:
        """The end of the chain, and a line that a crash cut off, which is taken out of the file."""
        identity = _identity(file)
        if identity == self._tail.file:
            return self._tail, ""
        tail, torn = self._end_of_file(self.path)
        if torn:
            os.ftruncate(file, identity[1] - len(torn))
        if not tail.number:
            # A new file goes on from the one before it, or, where somebody took that away, from what was written last.
            before = rotated(self.path)
            ends = [self._tail, *([self._end_of_file(before[-1])[0]] if before else [])]
            tail = max(ends, key=lambda end: end.number)
        return tail, torn.decode(errors="replace")

    def _write(self, file: int, lines: bytes) -> None:
        size = os.fstat(file).st_size
        try:
            written = 0
            while written < len(lines):
                written += os.write(file, lines[written:])
            os.fdatasync(file)
        except OSError:
            os.ftruncate(file, size)
            raise

    def _end_of_file(self, path: Path) -> tuple[Tail, bytes]:
        line, torn = last_line(path)
        if not line:
            return Tail(), torn
        try:
            content = json.loads(line)
            return Tail(int(content["number"]), str(content["hash"])), torn
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"its last line is damaged; move {path.name} away, and keep it") from error


def chained(entry: Mapping[str, Any], previous: str) -> tuple[bytes, str]:
    """A line, and its hash."""
    text = json.dumps({**entry, "previous": previous}, separators=(",", ":"), allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{text[:-1]},"hash":"{digest}"}}\n'.encode(), digest


def rotated(path: Path) -> list[Path]:
    """The full files that came before `path`, oldest first."""
    found = [each for each in path.parent.glob(f"{path.name}.*") if each.suffix[1:].isdecimal()]
    return sorted(found, key=lambda each: int(each.suffix[1:]))


def last_line(path: Path) -> tuple[bytes, bytes]:
    """The last whole line, without its end, and what follows it."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        block = BLOCK_BYTES
        while True:
            start = max(0, size - block)
            file.seek(start)
            whole, end, rest = file.read().rpartition(b"\n")
            if start == 0 or b"\n" in whole:
                return whole.rpartition(b"\n")[2], rest
            block *= 2


def _identity(file: int) -> tuple[int, int]:
    """Tells a file that this process wrote last from one that another process has added to."""
    status = os.fstat(file)
    return status.st_ino, status.st_size


def _make_durable(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
