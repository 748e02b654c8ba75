"""How the process keeps memory, on C libraries that can be told to; what a measurement was made with."""

import json
import platform
import re
import subprocess
import sys

import pytest
import torch

from descry.trainer.machine import _commit, describe_machine

SCRIPT = """
import resource, sys
import torch
from descry.trainer.machine import keep_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

if sys.argv[1] == "keep":
    keep_memory()
torch.ones(1024).sum()
before = resident()
torch.ones(16 << 20)
print((resident() - before) >> 20)
"""


def memory_left(setting: str) -> int:
    """MiB that a process holds on to after a tensor of 64 MiB was freed."""
    command = [sys.executable, "-c", SCRIPT, setting]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_freed_tensor_s_memory_is_kept_for_the_next():
    assert memory_left("default") < 16 < 60 <= memory_left("keep")


def test_a_measurement_says_what_it_was_made_with():
    machine = describe_machine()
    assert machine["processor"] and machine["threads"] == torch.get_num_threads()
    assert machine["torch"] == torch.__version__ and machine["descry"]
    assert json.loads(json.dumps(machine)) == machine


def test_the_commit_names_the_checkout_and_what_was_changed_in_it(tmp_path):
    assert _commit(tmp_path) is None, "no checkout"
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first"]):
        (tmp_path / "file").write_text("one")
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit = _commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{12}", commit)
    (tmp_path / "file").write_text("two")
    assert _commit(tmp_path) == f"{commit}-dirty"
