"""How the process keeps memory, on C libraries that can be told to."""

import platform
import subprocess
import sys

import pytest

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
