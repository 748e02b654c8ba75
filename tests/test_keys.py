"""Keys: what the client's commands write is what the server's models understand, and nothing else opens the door."""

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
from access import PROBE_NAME, ROLES, Access, AccessDenied, Caller, KeyFileError, read_keys

from descry.client import keys as client_keys
from descry.client.cli import main
from descry.client.errors import InvalidRequest
from descry.client.keys import add_key, read_key, read_key_file, remove_key

PROBE = "the-health-check's-own-key"
PROBE_HASH = hashlib.sha256(PROBE.encode()).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def parameters(**headers: str) -> str:
    """What Triton hands a model: header names with a dash."""
    return json.dumps({name.replace("_", "-"): value for name, value in headers.items()})


def test_both_sides_know_the_same_roles_and_header():
    import access

    assert client_keys.ROLES == ROLES and client_keys.KEY_HEADER == access.KEY_HEADER


def test_a_key_opens_what_its_roles_say(file):
    searcher, writer = add_key(file, "ann", ["search"]), add_key(file, "camera 1", ["write"])
    both = add_key(file, "bob", ["write", "search"])
    for role, welcome in (("search", {"ann", "bob"}), ("write", {"camera 1", "bob"}), ("admin", set())):
        door, entered = Access(file, "", role), set()
        for name, key in (("ann", searcher), ("camera 1", writer), ("bob", both)):
            try:
                entered.add(door.caller(parameters(descry_key=key)).name)
            except AccessDenied as refusal:
                assert f"needs the role {role}; the key '{name}' has" in str(refusal)
        assert entered == welcome
    assert Access(file, "", None).caller(parameters(descry_key=writer, descry_user="eve")) == Caller("camera 1", "eve")


@pytest.mark.parametrize("given", ["{}", "", parameters(descry_key=""), '{"descry-key": 5}', '{"other": "x"}'])
def test_no_key_is_refused_in_words(file, given):
    add_key(file, "ann", ["search"])
    with pytest.raises(AccessDenied, match="access denied: this server asks for a key: .*descry-key.*DESCRY_KEY"):
        Access(file, PROBE_HASH, "search").caller(given)


def test_no_other_key_is_taken(file):
    key = add_key(file, "ann", ["search"])
    entry = read_key_file(file)[0]
    door = Access(file, "", "search")
    for wrong in (key + "x", key[:-1], key.upper(), entry.hash, entry.salt, PROBE, "ann", "ü"):
        with pytest.raises(AccessDenied, match="not known"):
            door.caller(parameters(descry_key=wrong))
    # A caller may send parameters of its own: one with the header's name must not stand for the header.
    for twice in (f'{{"descry-key": "{key}", "descry-key": "x"}}', f'{{"Descry-Key": "x", "descry-key": "{key}"}}'):
        with pytest.raises(AccessDenied, match="name of a header"):
            door.caller(twice)
    assert door.caller(f'{{"Descry-Key": "{key}", "top": 5}}').name == "ann"


def test_a_removed_key_is_refused_at_once_and_a_new_one_taken(file):
    key = add_key(file, "ann", ["search"])
    door = Access(file, "", "search")
    assert door.caller(parameters(descry_key=key)).name == "ann"
    second = add_key(file, "bob", ["search"])
    assert door.caller(parameters(descry_key=second)).name == "bob"
    remove_key(file, "ann")
    with pytest.raises(AccessDenied):
        door.caller(parameters(descry_key=key))
    remove_key(file, "bob")
    assert read_keys(file) == ()
    with pytest.raises(AccessDenied):
        door.caller(parameters(descry_key=second))


def test_the_health_check_has_every_role_and_no_other_user(file):
    add_key(file, "ann", ["search"])
    for role in (*ROLES, None):
        assert Access(file, PROBE_HASH, role).caller(parameters(descry_key=PROBE, descry_user="x")) == Caller(
            PROBE_NAME
        )


def test_without_a_key_file_everybody_enters_and_says_who_he_is():
    assert Access(None, "", "admin").caller(parameters(descry_user="ann")) == Caller("-", "ann")


@pytest.mark.parametrize(
    "content", ["", "[]", '{"keys": [{}]}', '{"keys": [{"name": "a", "roles": ["root"], "salt": "00", "hash": "00"}]}']
)
def test_a_damaged_key_file_lets_nobody_in(file, content):
    file.write_text(content)
    with pytest.raises(KeyFileError, match="keys.json is not a key file"):
        Access(file, "", "search")
    file.unlink()
    key = add_key(file, "ann", ["search"])
    door = Access(file, "", "search")
    file.write_text(content + " ")
    with pytest.raises(KeyFileError):
        door.caller(parameters(descry_key=key))
    file.unlink()
    with pytest.raises(KeyFileError, match="cannot read the key file keys.json: No such file"):
        door.caller(parameters(descry_key=key))


def test_the_file_holds_no_key_and_only_its_owner_reads_it(file):
    keys = [add_key(file, name, ["search"]) for name in ("ann", "bob")]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert not any(key in text or hashlib.sha256(key.encode()).hexdigest() in text for key in keys)
    assert len({entry.salt for entry in read_key_file(file)}) == 2 and list(file.parent.iterdir()) == [file]


def test_the_commands(file, capsys):
    assert main(["keys", "add", "ann", "--role", "search", "--role", "admin", "--file", str(file)]) == 0
    key, told = capsys.readouterr()
    assert Access(file, "", "admin").caller(parameters(descry_key=key.strip())).name == "ann" and "DESCRY_KEY" in told
    assert main(["keys", "list", "--file", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "ann" in shown and "search+admin" in shown and key.strip() not in shown
    for arguments, message in (
        (["add", "ann", "--role", "search"], "taken: ann"),
        (["add", "-", "--role", "search"], "cannot name a key"),
        (["remove", "bob"], "no key 'bob'; it has ann"),
    ):
        assert main(["keys", *arguments, "--file", str(file)]) == 1
        assert message in capsys.readouterr().err
    assert main(["keys", "remove", "ann", "--file", str(file)]) == 0 and read_key_file(file) == []


def test_a_client_refuses_a_key_that_others_may_read(tmp_path):
    mine = tmp_path / "key"
    mine.write_text("descry_x\n")
    os.chmod(mine, 0o640)
    with pytest.raises(InvalidRequest, match="chmod 600"):
        read_key(mine)
    os.chmod(mine, 0o600)
    assert read_key(mine) == "descry_x"
    mine.write_text("two words")
    with pytest.raises(InvalidRequest, match="one key, and nothing else"):
        read_key(mine)
