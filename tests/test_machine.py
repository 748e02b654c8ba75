"""How the process keeps memory, on C libraries that can be told to."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from descry.trainer.machine import keep_memory

if sys.argv[1] == "keep":
    keep_memory()
torch.zeros(16 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.zeros(16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(setting: str) -> int:
    """Page faults of twenty tensors of 64 MiB, one after the other, in a process of its own."""
    command = [sys.executable, "-c", SCRIPT, setting]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_freed_tensor_s_memory_is_used_again():
    kept, returned = page_faults("keep"), page_faults("default")
    assert kept < 1000 < returned
