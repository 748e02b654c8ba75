"""What the tests ask the system about processes."""

import time
from pathlib import Path


def children(process_id: int) -> dict[int, str]:
    """Process id and command line of a process's descendants."""
    found: dict[int, str] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
            command = (status.parent / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # the process ended meanwhile
        if parent == process_id:
            found[int(status.parent.name)] = command
            found |= children(int(status.parent.name))
    return found


def wait_until_gone(process_ids: list[int], seconds: float) -> list[int]:
    """Those of the processes that still run after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        process_ids = [each for each in process_ids if running(each)]
        if not process_ids:
            break
        time.sleep(0.1)
    return process_ids


def running(process_id: int) -> bool:
    """Whether a process is there, and more than an entry that nobody has read yet."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
