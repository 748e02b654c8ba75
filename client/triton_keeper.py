"""Runs the Triton server on behalf of `descry serve`, and leaves nothing of it behind, however its parent ends.

A program of its own, standard library only: standard input is a pipe that the parent holds. When the parent closes it,
or dies, the server is asked to stop, what remains of its processes is killed, and their shared memory is removed.
Triton alone would orphan the processes of its Python models when it is stopped while it loads them.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

POLL_SECONDS = 0.1


def main() -> int:
    """Keep `argv[4:]` running; returns its exit status.

    `argv[1]` is how many seconds it may take to stop, unless standard input names another number before it ends;
    `argv[2]` the prefix of its shared memory, `argv[3]` a folder to remove at the end.
    """
    seconds, memory_prefix, folder, *command = sys.argv[1:]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    while server.poll() is None and not select.select([sys.stdin], [], [], POLL_SECONDS)[0]:
        pass
    # A server that ended by itself leaves nobody to wait for; its parent may hold the pipe open still.
    patience = sys.stdin.read() if server.poll() is None else "0"
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(float(patience or seconds))
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    for region in Path("/dev/shm").glob(f"{memory_prefix}*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return server.wait()


if __name__ == "__main__":
    sys.exit(main())
