"""The audit log: durable, chained, shared by processes; every change of a line is found and named."""

import errno
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from audit_entry import PROBED, entries_of, is_probe, result_counts
from audit_log import AuditError, AuditLog
from served_model import ServedModel

from descry.client import health
from descry.client.audit import check_audit, read_audit, since
from descry.client.cli import main
from descry.client.errors import InvalidRequest

LARGE = 2**30


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gallery.audit.jsonl"


def entry(index: int, **fields: object) -> dict[str, object]:
    return {"who": f"key{index % 3}", "action": "gallery_search", "results": index, **fields}


def filled(file: Path, count: int, rotate_bytes: int = LARGE) -> AuditLog:
    log = AuditLog(file, rotate_bytes)
    for index in range(count):
        log.append([entry(index)])
    return log


def test_lines_are_read_back_in_order_and_chained(file):
    log = filled(file, 3)
    log.append([entry(3, user="Zoë \ud800 \n"), entry(4)])
    entries = list(read_audit(file))
    assert [one["results"] for one in entries] == [one["number"] - 1 for one in entries] == list(range(5))
    check = check_audit(file)
    assert (check.lines, check.problems, check.notes) == (5, [], []) and entries[1]["previous"] == entries[0]["hash"]
    assert file.stat().st_mode & 0o077 == 0


def test_a_second_process_goes_on_where_the_first_stopped(file):
    first, second = AuditLog(file, LARGE), AuditLog(file, LARGE)
    for index in range(6):
        (first, second)[index % 2].append([entry(index)])
    assert check_audit(file).lines == 6 and not check_audit(file).problems


def write_many(file: Path, worker: int) -> None:
    log = AuditLog(file, 5_000)
    for index in range(40):
        log.append([entry(index, worker=worker), entry(index, worker=worker)])


def test_processes_share_a_log_that_rotates(file):
    """Four processes, 80 lines each, in many files: nothing lost, nothing torn, one chain."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_many, args=(file, worker)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 4
    check = check_audit(file)
    assert check.lines == 320 and check.problems == [] and len(list(file.parent.glob("*.jsonl.*[0-9]"))) > 5
    for worker in range(4):
        mine = [one["results"] for one in read_audit(file) if one["worker"] == worker]
        assert mine == [index for index in range(40) for _ in range(2)]


def changed(file: Path, change) -> list[str]:
    """The problems after `change` of the file's lines."""
    lines = file.read_text().splitlines(keepends=True)
    change(lines)
    file.write_text("".join(lines))
    return check_audit(file).problems


def replace(number: int, old: str, new: str):
    def change(lines: list[str]) -> None:
        assert old in lines[number - 1]
        lines[number - 1] = lines[number - 1].replace(old, new)

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (replace(4, '"results":3', '"results":0'), "jsonl:4: edited: its hash does not fit its content"),
        (replace(9, '"results":8', '"results":0'), "jsonl:9: edited"),
        (replace(1, "key0", "key1"), "jsonl:1: edited"),
        (lambda lines: lines.pop(4), "jsonl:5: entries 5 to 5 were removed before it"),
        (lambda lines: lines.__delitem__(slice(2, 6)), "jsonl:3: entries 3 to 6 were removed before it"),
        (lambda lines: lines.insert(2, lines.pop(5)), "jsonl:3: entries 3 to 5 were removed before it"),
        (lambda lines: lines.insert(3, lines[1]), "jsonl:4: entry 2 follows entry 3: moved or repeated"),
        (lambda lines: lines.insert(3, "{}\n"), "jsonl:4: not a line of the log"),
        (lambda lines: lines.append(lines.pop()[:-20]), "jsonl:9: cut off"),
        (lambda lines: lines.append(lines.pop()[:-1]), "jsonl:9: cut off"),
    ],
)
def test_every_change_is_named_by_its_line(file, change, problem):
    filled(file, 9)
    assert problem in changed(file, change)[0]


def test_a_line_forged_with_a_fitting_hash_breaks_the_chain(file, tmp_path):
    filled(file, 5)
    other = tmp_path / "other.jsonl"
    forged = AuditLog(other, LARGE)
    for index in range(5):
        forged.append([entry(index + 10)])
    lines = other.read_text().splitlines(keepends=True)
    assert "does not continue the entry before it" in changed(file, lambda own: own.__setitem__(2, lines[2]))[0]


def test_a_noted_hash_shows_that_the_end_was_cut_or_everything_written_anew(file):
    filled(file, 5)
    anchor = check_audit(file).last_hash
    filled(file, 2)
    assert check_audit(file, anchor).problems == []
    assert changed(file, lambda lines: lines.__delitem__(slice(4, 7))) == []
    assert "cut or written anew since it was noted" in check_audit(file, anchor).problems[0]
    file.unlink()
    filled(file, 9)
    assert "cut or written anew" in check_audit(file, anchor).problems[0]


def test_what_a_crash_cut_off_is_repaired_and_said(file):
    filled(file, 3)
    with file.open("ab") as stream:
        stream.write(b'{"number":4,"who":"no')
    assert check_audit(file).problems == [f"{file}:4: cut off"]
    AuditLog(file, LARGE).append([entry(3)])
    entries = list(read_audit(file))
    assert entries[3]["action"] == "repaired" and entries[3]["fragment"] == '{"number":4,"who":"no'
    check = check_audit(file)
    assert check.problems == [] and check.lines == 5 and "had cut off a line" in check.notes[0]


def test_rotation_keeps_the_chain_and_an_archived_start_is_said(file):
    filled(file, 40, rotate_bytes=2_000)
    first, second = sorted(file.parent.glob("*.jsonl.*[0-9]"), key=lambda path: int(path.suffix[1:]))[:2]
    assert check_audit(file).lines == 40 and not check_audit(file).problems
    gone = len(first.read_text().splitlines())
    first.unlink()
    check = check_audit(file)
    assert check.problems == [] and f"begins at entry {gone + 1}" in check.notes[0]
    third = Path(f"{file}.3")
    third.unlink()
    assert "were removed before it" in check_audit(file).problems[0]
    filled(file, 20, rotate_bytes=2_000)
    assert second.exists() and len(list(read_audit(file))) > 20


def test_a_log_that_somebody_removes_goes_on_with_its_numbers(file):
    log = filled(file, 3)
    file.unlink()
    log.append([entry(3)])
    assert [one["number"] for one in read_audit(file)] == [4]


@pytest.mark.parametrize("failing", ["write", "fdatasync"])
def test_a_full_disk_refuses_and_leaves_no_half_line(file, monkeypatch, failing):
    log = filled(file, 2)
    content = file.read_bytes()

    def full(descriptor, *arguments):
        if arguments:
            written(descriptor, arguments[0][:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    written = os.write
    monkeypatch.setattr(os, failing, full)
    with pytest.raises(AuditError, match=r"gallery.audit.jsonl cannot be written \(No space left on device\)"):
        log.append([entry(2)])
    monkeypatch.undo()
    assert file.read_bytes() == content
    log.append([entry(2)])
    assert check_audit(file).lines == 3 and not check_audit(file).problems


def test_a_place_that_cannot_be_written_refuses(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError):
        AuditLog(tmp_path / "file" / "a.jsonl", LARGE).append([entry(0)])
    (tmp_path / "damaged.jsonl").write_text("no entry\n")
    with pytest.raises(AuditError, match="last line is damaged; move damaged.jsonl away, and keep it"):
        AuditLog(tmp_path / "damaged.jsonl", LARGE).append([entry(0)])


def served_model(folder: Path) -> ServedModel:
    from tiny_models import FUSION, SCHEMA  # torch comes with it, which the writing processes do not need

    (folder / "gallery_search").mkdir()
    for name, content in (("fusion", FUSION), ("schema", SCHEMA)):
        (folder / "gallery_search" / f"{name}.json").write_text(json.dumps(content))
    return ServedModel.load(folder)


def test_an_entry_says_what_is_stated_by_name(tmp_path):
    attributes = np.array([[1, 0, 0, 1, 0, 0.25, 0], [0] * 7], np.float32)
    known = np.array([[1, 0, 1, 1, 1, 0.7, 0], [0] * 7], np.float32)
    inputs = {
        "query": np.zeros((2, 16), np.float32),
        "attributes": attributes,
        "known": known,
        "par_weight": np.array([[0.7], [np.nan]], np.float32),
        "k": np.array([[20], [20]], np.int32),
        "filter": np.array([[b"{}"], [b"\xff" * 5000]], np.object_),
        "not asked for": np.zeros((2, 0), np.float32),
    }
    first, second = entries_of(served_model(tmp_path), inputs)
    assert first["stated"] == {
        "gender=female": 1.0,
        "upper_color=black": 0.0,
        "upper_color=red": 1.0,
        "upper_color=white": 0.0,
        "accessory=bag": [0.25, 0.7],
    }
    assert (first["k"], first["par_weight"], first["filter"]) == (20, 0.7, "{}")
    assert first["query"].startswith("sha256:") and second["filter"].startswith("sha256:")
    assert second["stated"] == {} and second["par_weight"] == "nan"
    json.dumps([first, second], allow_nan=False)


def test_only_what_can_find_nothing_counts_as_a_health_check():
    assert health.PROBED == PROBED
    search = {"filter": json.dumps({"camera": [PROBED]}), "k": 1}
    assert is_probe(search, 0) and not is_probe(search, 1) and not is_probe({"filter": "{}"}, 0)
    assert not is_probe({"filter": json.dumps({"camera": [PROBED, "1"]})}, 0)
    assert not is_probe({"filter": "sha256:8931bd0055744b9c"}, 0), "a long filter is named by its digest"
    assert is_probe({"id": PROBED, "operation": "delete"}, None)
    assert not is_probe({"id": PROBED, "operation": "put"}, None)
    assert not is_probe({"id": "x", "operation": "delete"}, None)
    trial = {"do": "prune", "camera": PROBED, "older_than": None, "dry_run": True}
    assert is_probe({"request": json.dumps(trial)}, None)
    assert not is_probe({"request": json.dumps(trial | {"dry_run": False})}, None) and not is_probe(
        {"request": "x"}, None
    )
    assert result_counts({"ids": np.array([[b"a", b""], [b"", b""]], np.object_)}) == [1, 0]


def test_the_command_prints_filters_and_verifies(file, capsys):
    log = filled(file, 5)
    log.append([entry(5, action="probe"), entry(6, user="eve", who="-")])
    assert main(["audit", str(file)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    assert main(["audit", str(file), "--json", "--probes", "--who", "key2", "--since", "1h"]) == 0
    assert [json.loads(line)["results"] for line in capsys.readouterr().out.splitlines()] == [2, 5]
    assert main(["audit", str(file), "--json", "--who", "eve"]) == 0
    assert json.loads(capsys.readouterr().out)["results"] == 6
    assert main(["audit", str(file), "--since", "2999-01-01"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["audit", str(file), "--verify"]) == 0
    anchor = capsys.readouterr().out.split()[-1]
    assert main(["audit", str(file), "--verify", "--anchor", anchor]) == 0
    assert main(["audit", str(file), "--verify", "--anchor", "0" * 63 + "1"]) == 1
    assert changed(file, replace(2, '"results":1', '"results":2'))
    assert main(["audit", str(file), "--verify"]) == 1
    assert "jsonl:2: edited" in capsys.readouterr().out
    assert main(["audit", str(file.with_name("absent"))]) == 1
    assert "does not exist" in capsys.readouterr().err
    with pytest.raises(InvalidRequest, match="is no time"):
        since("yesterday")
