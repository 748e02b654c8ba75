"""What the tests ask the system about processes."""

import os
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


def processes_of_server(grpc_port: int) -> list[int]:
    """Triton and its models' processes, of a server that this process started."""
    own = children(os.getpid()).items()
    (keeper,) = [id for id, line in own if "triton_keeper" in line and f"--grpc-port={grpc_port} " in line]
    return list(children(keeper))


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


def memory_of(process_ids: list[int]) -> tuple[float, float]:
    """Resident memory of processes in MiB: all of it summed up, and the part that is no process's but its own."""
    found = [0, 0]
    for process_id in process_ids:
        try:
            status = Path(f"/proc/{process_id}/status").read_text()
        except OSError:
            continue  # the process ended meanwhile
        fields = dict(line.split(":", 1) for line in status.splitlines())
        for index, name in enumerate(("VmRSS", "RssAnon")):
            found[index] += int(fields.get(name, "0 kB").split()[0])
    return found[0] / 1024, found[1] / 1024
