"""Who may call a model: hashed keys in a file, one or more roles a key. Importable without a server.

Triton forwards the gRPC metadata `descry-key` and `descry-user` as parameters of the request
(`--grpc-header-forward-pattern`), and an ensemble hands them on to each of its steps. A key is 256 random bits, so that
one salted SHA-256 hides it: there is nothing to guess, hence no slow hash.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server_settings import ServerSettings

KEY_HEADER, USER_HEADER = "descry-key", "descry-user"
ROLES = ("search", "write", "admin")
NOBODY = "-"
PROBE_NAME = "descry-serve"
LONGEST_USER = 200


class AccessDenied(Exception):
    """The caller has no key, or one without the role; the message is sent to the caller."""


class KeyFileError(RuntimeError):
    """The key file cannot be used; the message names it and the next step."""


@dataclass(frozen=True)
class Caller:
    """Who sent a request: the name of the key, `-` where none is asked, and the user that a gateway names."""

    name: str = NOBODY
    user: str = ""


@dataclass(frozen=True)
class Key:
    """One entry of the key file."""

    name: str
    roles: frozenset[str]
    salt: str
    hash: str


class Access:
    """The door of one model; the key file is read again when it changes."""

    def __init__(self, keys: Path | None, probe: str, role: str | None) -> None:
        """Read the key file.

        Args:
            keys: the file; None lets everybody in.
            probe: SHA-256 of the server's own health check's key, which has every role; empty for none.
            role: what a key needs here; None lets every known key in.

        Raises:
            KeyFileError: the file cannot be read or is no key file.
        """
        self._path, self._probe, self._role = keys, probe, role
        self._seen: tuple[int, ...] = ()
        self._keys: tuple[Key, ...] = ()
        if keys is not None:
            self._refresh(keys)

    @classmethod
    def from_environment(cls, role: str | None) -> "Access":
        """The door that `server_settings` describes."""
        settings = ServerSettings.read()
        return cls(settings.keys, settings.probe, role)

    def caller(self, parameters: str) -> Caller:
        """Who calls, given the request's parameters as JSON.

        Raises:
            AccessDenied: no key, an unknown one, or one without the role.
            KeyFileError: the key file has become unusable; nobody gets in.
        """
        headers = _headers(parameters)
        user = str(headers.get(USER_HEADER, ""))[:LONGEST_USER]
        if self._path is None:
            return Caller(user=user)
        self._refresh(self._path)
        given = headers.get(KEY_HEADER)
        if not isinstance(given, str) or not given:
            raise AccessDenied(
                f"access denied: this server asks for a key: send it as the header {KEY_HEADER} "
                "(descry: --key-file, or the variable DESCRY_KEY)"
            )
        if self._probe and hmac.compare_digest(hashlib.sha256(given.encode()).hexdigest(), self._probe):
            return Caller(PROBE_NAME)
        key = self._known(given)
        if key is None:
            raise AccessDenied("access denied: the key is not known to this server, or has been removed")
        if self._role is not None and self._role not in key.roles:
            roles = ", ".join(sorted(key.roles))
            raise AccessDenied(
                f"access denied: this call needs the role {self._role}; the key {key.name!r} has {roles}"
            )
        return Caller(key.name, user)

    def _known(self, given: str) -> Key | None:
        """The entry of a key; every entry is compared, so that the time tells nothing."""
        found = None
        for key in self._keys:
            if hmac.compare_digest(salted_hash(key.salt, given), key.hash):
                found = key
        return found

    def _refresh(self, path: Path) -> None:
        try:
            status = path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._keys, self._seen = read_keys(path), seen
        except OSError as error:
            raise KeyFileError(f"descry: cannot read the key file {path.name}: {error.strerror}") from error


def salted_hash(salt: str, key: str) -> str:
    """What the key file holds of a key: SHA-256 of salt (hexadecimal) and key, in hexadecimal."""
    return hashlib.sha256(bytes.fromhex(salt) + key.encode()).hexdigest()


def read_keys(path: Path) -> tuple[Key, ...]:
    """The entries of a key file: `{"keys": [{"name", "roles", "salt", "hash", "created"}]}`.

    Raises:
        OSError: the file cannot be read.
        KeyFileError: it is no key file.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        keys = []
        for entry in json.loads(text)["keys"]:
            keys.append(Key(str(entry["name"]), frozenset(entry["roles"]), str(entry["salt"]), str(entry["hash"])))
            salted_hash(keys[-1].salt, "")
            unknown = sorted(keys[-1].roles - set(ROLES))
            if unknown:
                raise ValueError(f"role {unknown[0]!r} is not one of {', '.join(ROLES)}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise KeyFileError(
            f"descry: {path.name} is not a key file ({error}): make one with `descry keys add`"
        ) from error
    return tuple(keys)


def _headers(parameters: str) -> dict[str, Any]:
    """The request's parameters; one that is given twice, as header and as parameter, is refused."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # HTTP senders write a header's name as they like: Descry-Key.
        content = {name.lower(): value for name, value in pairs}
        if len(content) != len(pairs):
            raise AccessDenied("access denied: a parameter of the request has the name of a header of Descry")
        return content

    return json.loads(parameters, object_pairs_hook=once) if parameters else {}
