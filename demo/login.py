"""Who may open the page: names with salted scrypt hashes of passwords in a file.

python -m descry.demo.login ann --file users.json      # asks for the password; also changes one
python -m descry.demo.login ann --file users.json --remove
"""

import argparse
import getpass
import hashlib
import hmac
import json
import os
import secrets
import sys
from pathlib import Path

from descry.client import InvalidRequest

SHORTEST = 10  # characters of a password
COST = {"n": 2**14, "r": 8, "p": 1}  # of scrypt, as OWASP's least for a login
OTHERS = 0o077  # rights of group and others
Users = dict[str, dict[str, str]]


def main(arguments: list[str] | None = None) -> int:
    """Add, change or remove one user; 0, or 1 with the reason."""
    parser = argparse.ArgumentParser(prog="python -m descry.demo.login", description="Who may open the search page.")
    parser.add_argument("name", help="goes into the server's audit log with every search")
    parser.add_argument("--file", type=Path, required=True, help="made if absent, for its owner only")
    parser.add_argument("--remove", action="store_true")
    options = parser.parse_args(arguments)
    try:
        users = read_users(options.file) if options.file.exists() else {}
        if options.remove:
            if users.pop(options.name, None) is None:
                raise InvalidRequest(
                    f"{options.file} has no user {options.name!r}; it has {', '.join(users) or 'none'}"
                )
        else:
            users[options.name] = hashed(options.name, getpass.getpass(f"password for {options.name}: "))
        write_users(options.file, users)
    except InvalidRequest as error:
        print(f"descry.demo.login: {error}", file=sys.stderr)
        return 1
    print(f"{options.file}: {', '.join(users) or 'nobody'}")
    return 0


def hashed(name: str, password: str) -> dict[str, str]:
    """What the file keeps of a user.

    Raises:
        InvalidRequest: the name or the password will not do.
    """
    # The name is sent as a gRPC header.
    if not name.isascii() or not name.isprintable() or not name.strip():
        raise InvalidRequest(f"{name!r} cannot be a user's name: use letters, digits and signs of ASCII")
    if len(password) < SHORTEST:
        raise InvalidRequest(f"a password has at least {SHORTEST} characters")
    salt = secrets.token_bytes(16)
    return {"salt": salt.hex(), "hash": _scrypt(password, salt).hex()}


def allowed(path: Path, name: str, password: str) -> bool:
    """Whether the file has this user with this password; read at every login, so that a removed user is out at once.

    Raises:
        InvalidRequest: the file cannot be read.
    """
    user = read_users(path).get(name)
    # An unknown name costs as much time as a wrong password, so that the time does not tell names.
    salt, expected = (bytes.fromhex(user["salt"]), bytes.fromhex(user["hash"])) if user else (bytes(16), bytes(64))
    return hmac.compare_digest(_scrypt(password, salt), expected) and user is not None


def read_users(path: Path) -> Users:
    """The users by name.

    Raises:
        InvalidRequest: the file cannot be read, others may read it, or it is something else.
    """
    try:
        if path.stat().st_mode & OTHERS:
            raise InvalidRequest(f"{path} may be read by others: chmod 600 {path}")
        users = json.loads(path.read_text(encoding="utf-8"))["users"]
        return {str(name): {"salt": str(user["salt"]), "hash": str(user["hash"])} for name, user in users.items()}
    except OSError as error:
        raise InvalidRequest(
            f"cannot read the users in {path}: {error.strerror}; python -m descry.demo.login makes it"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(
            f"{path} is no file of users ({error!r}); python -m descry.demo.login makes one"
        ) from error


def write_users(path: Path, users: Users) -> None:
    """Replace the file at once.

    Raises:
        InvalidRequest: it cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump({"users": users}, file, indent=2)
        new.replace(path)
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror}") from error


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, **COST)


if __name__ == "__main__":
    sys.exit(main())
