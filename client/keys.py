"""The file of hashed keys that a server asks its callers for: who may search, who may write, who may administer.

A key is shown once, when it is made; the file holds a salted hash of it. The server's side is
model_repository/gallery_search/1/access.py, and reads the file again when it changes.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from descry.client.errors import InvalidRequest

KEY_HEADER = "descry-key"
USER_HEADER = "descry-user"
ROLES = ("search", "write", "admin")
OTHERS = 0o077  # rights of group and others


@dataclass(frozen=True)
class KeyEntry:
    """One key as the file holds it.

    Attributes:
        name: whom it was given to; the audit log says it.
        roles: of `ROLES`.
        salt: random, hexadecimal.
        hash: SHA-256 of salt and key, hexadecimal.
        created: ISO 8601, UTC.
    """

    name: str
    roles: tuple[str, ...]
    salt: str
    hash: str
    created: str


def add_key(path: Path, name: str, roles: Sequence[str]) -> str:
    """Add a key to the file, which is made if absent.

    Returns:
        The key: the only time that it is seen.

    Raises:
        InvalidRequest: the name is taken, or the file cannot be read or written.
    """
    entries = read_key_file(path) if path.exists() else []
    if not name or not name.isprintable() or name in ("-", *(entry.name for entry in entries)):
        taken = ", ".join(entry.name for entry in entries) or "none"
        raise InvalidRequest(f"{name!r} cannot name a key: choose one that is not there yet; taken: {taken}")
    key, salt = "descry_" + secrets.token_urlsafe(32), secrets.token_hex(16)
    digest = hashlib.sha256(bytes.fromhex(salt) + key.encode()).hexdigest()
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    _write(path, [*entries, KeyEntry(name, tuple(sorted(set(roles), key=ROLES.index)), salt, digest, now)])
    return key


def remove_key(path: Path, name: str) -> None:
    """Take a key out of the file; a running server refuses it from the next request on.

    Raises:
        InvalidRequest: no such key, or the file cannot be read or written.
    """
    entries = read_key_file(path)
    kept = [entry for entry in entries if entry.name != name]
    if len(kept) == len(entries):
        raise InvalidRequest(
            f"{path} has no key {name!r}; it has {', '.join(entry.name for entry in entries) or 'none'}"
        )
    _write(path, kept)


def read_key_file(path: Path) -> list[KeyEntry]:
    """The entries, in the order in which they were added.

    Raises:
        InvalidRequest: the file cannot be read or is no key file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [KeyEntry(**{**entry, "roles": tuple(entry["roles"])}) for entry in content["keys"]]
    except OSError as error:
        raise InvalidRequest(f"cannot read the key file {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"{path} is not a key file ({error}); `descry keys add` makes one") from error


def read_key(path: Path) -> str:
    """The key in a client's file, which holds nothing else.

    Raises:
        InvalidRequest: the file cannot be read, others may read it, or it is not one line.
    """
    try:
        key = path.read_text(encoding="ascii").strip()
        open_to_others = path.stat().st_mode & OTHERS
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"cannot read the key in {path}: {error}") from error
    if open_to_others:
        raise InvalidRequest(f"{path} holds a key that others may read: chmod 600 {path}")
    if not key or len(key.split()) != 1:
        raise InvalidRequest(f"{path} must hold one key, and nothing else")
    return key


def _write(path: Path, entries: Sequence[KeyEntry]) -> None:
    """Replace the file at once, so that a server never reads half of it."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump({"keys": [asdict(entry) for entry in entries]}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise InvalidRequest(f"cannot write the key file {path}: {error.strerror}") from error
