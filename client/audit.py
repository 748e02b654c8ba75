"""Reads a server's audit log, its full files before it, and tells whether anybody changed them.

A line ends with the SHA-256 of what stands before, and names the hash of the line before it; the server's side is
model_repository/gallery_search/1/audit_log.py.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from descry.client.errors import InvalidRequest

FIRST_HASH = "0" * 64
END = re.compile(r',"hash":"([0-9a-f]{64})"}$')


@dataclass
class AuditCheck:
    """What a check of the chain found.

    Attributes:
        lines: whole lines.
        last_hash: of the last whole line: note it elsewhere, and it proves later that nothing before it was changed.
        problems: what is wrong, with file and line.
        notes: what may be meant: the log does not begin at its first line, or the server repaired its end.
    """

    lines: int = 0
    last_hash: str = FIRST_HASH
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def audit_files(path: Path) -> list[Path]:
    """The log's files, oldest first: `path.1`, `path.2`, …, `path`.

    Raises:
        InvalidRequest: there is none.
    """
    full = [each for each in path.parent.glob(f"{path.name}.*") if each.suffix[1:].isdecimal()]
    files = sorted(full, key=lambda each: int(each.suffix[1:])) + ([path] if path.is_file() else [])
    if not files:
        raise InvalidRequest(f"{path} does not exist; the server writes it beside the gallery, as GALLERY.audit.jsonl")
    return files


def read_audit(path: Path) -> Iterator[dict[str, Any]]:
    """The entries that can be read, oldest first; `check_audit` says which cannot.

    Raises:
        InvalidRequest: no such log, or a file cannot be read.
    """
    for _, line in _lines(path):
        if (entry := _entry(line)) is not None:
            yield entry


def check_audit(path: Path, anchor: str | None = None) -> AuditCheck:
    """Check each line's own hash and the chain.

    Args:
        path: the log.
        anchor: a last hash that was noted earlier; a chain without it was written anew.

    Raises:
        InvalidRequest: no such log, or a file cannot be read.
    """
    check = AuditCheck()
    number, anchored = None, anchor is None or anchor == FIRST_HASH
    for where, line in _lines(path):
        entry = _entry(line)
        if entry is None:
            check.problems.append(f"{where}: " + ("cut off" if not line.endswith("\n") else "not a line of the log"))
            continue
        check.lines += 1
        end = END.search(line.rstrip("\n"))
        assert end is not None  # an entry has it
        if hashlib.sha256((line[: end.start()] + "}").encode()).hexdigest() != end[1]:
            check.problems.append(f"{where}: edited: its hash does not fit its content")
        if number is None and entry["number"] > 1:
            check.notes.append(f"{where}: begins at entry {entry['number']}: what was before is not here")
        elif number is None and entry["previous"] != FIRST_HASH:
            check.problems.append(f"{where}: edited: the first entry names one before it")
        elif number is not None:
            check.problems += _break(where, entry, number, check.last_hash)
        if entry.get("action") == "repaired":
            check.notes.append(f"{where}: before this entry a crash, or somebody, had cut off a line")
        number, check.last_hash = entry["number"], end[1]
        anchored = anchored or check.last_hash == anchor
    if not anchored:
        check.problems.append(
            f"{path}: no entry has the hash {anchor}: the log was cut or written anew since it was noted"
        )
    return check


def since(text: str, now: datetime | None = None) -> datetime:
    """A time from ISO 8601 or from an age such as `30d`, `12h`, `15m`.

    Raises:
        InvalidRequest: neither.
    """
    if age := re.fullmatch(r"(\d+)([dhm])", text):
        unit = {"d": "days", "h": "hours", "m": "minutes"}[age[2]]
        return (now or datetime.now(timezone.utc)) - timedelta(**{unit: int(age[1])})
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise InvalidRequest(
            f"{text!r} is no time: give ISO 8601, such as 2026-05-01, or an age such as 30d"
        ) from error
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def chosen(entries: Iterator[dict[str, Any]], start: datetime | None, who: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The entries from `start` on of the keys or users `who`; all where these are not given."""
    for entry in entries:
        if start is not None and datetime.fromisoformat(entry["time"]) < start:
            continue
        if not who or entry.get("who") in who or entry.get("user") in who:
            yield entry


def _break(where: str, entry: dict[str, Any], number: int, last_hash: str) -> list[str]:
    if entry["number"] > number + 1:
        return [f"{where}: entries {number + 1} to {entry['number'] - 1} were removed before it"]
    if entry["number"] <= number:
        return [f"{where}: entry {entry['number']} follows entry {number}: moved or repeated"]
    if entry["previous"] != last_hash:
        return [f"{where}: does not continue the entry before it: one of the two was replaced"]
    return []


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line with `file:line`."""
    for file in audit_files(path):
        try:
            with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
                for number, line in enumerate(lines, 1):
                    yield f"{file}:{number}", line
        except OSError as error:
            raise InvalidRequest(f"cannot read {file}: {error.strerror}") from error


def _entry(line: str) -> dict[str, Any] | None:
    """The entry in a line; None where the line is none."""
    if not line.endswith("\n") or not END.search(line.rstrip("\n")):
        return None
    try:
        entry = json.loads(line)
        datetime.fromisoformat(entry["time"])
        return entry if isinstance(entry["number"], int) and isinstance(entry["previous"], str) else None
    except (ValueError, KeyError, TypeError):
        return None
