"""Gives memory back to the system that an unusually large request left behind."""

import ctypes
import os
from pathlib import Path

ROOM_BYTES = 64 * 2**20
STATUS = Path("/proc/self/statm")


class SpareMemory:
    """What the C library keeps of freed memory is given back whenever the process has grown by `ROOM_BYTES`."""

    def __init__(self) -> None:
        """Note how large the process is."""
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
        self._level = resident_bytes() + ROOM_BYTES

    def give_back(self) -> None:
        """Between two batches, when what the last one needed is free."""
        if self._trim is not None and resident_bytes() > self._level:
            self._trim(0)
            self._level = resident_bytes() + ROOM_BYTES


def resident_bytes() -> int:
    """Physical memory of this process."""
    return int(STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
