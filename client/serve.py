"""Runs Triton on this machine, without a container, for `descry serve` and the tests."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from PIL import Image
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from descry.client import triton_keeper
from descry.client.errors import DescryError, GalleryEmpty
from descry.client.search import CHANNEL, SearchClient
from descry.client.triton_wheel import ServerError, TritonWheel

START_SECONDS = 300
STOP_SECONDS = 35
DEAD_STOP_SECONDS = 4
PROBE_SECONDS = 60
POLL_SECONDS = 0.2
TELL_SECONDS = 5
CHECK_SECONDS = 10
LOG_LINES_SHOWN = 8
PROBED_ID = "descry-health-check"
# What Triton answers for ever once a Python model's process died; its readiness calls do not tell.
DEAD_MODEL = "is not healthy"


class TritonServer:
    """A Triton server as a context manager: every model answers on entry, all is gone on exit.

    Attributes:
        host: the address that all ports are bound to.
        grpc_port: what a client asks.
        http_port: Triton's HTTP endpoint, for operators.
        metrics_port: Prometheus metrics, for operators.
        log: the server's log; None before the start, unless it was given.
    """

    def __init__(
        self,
        repository: Path,
        gallery: Path,
        host: str = "127.0.0.1",
        grpc_port: int = 8001,
        http_port: int = 8000,
        metrics_port: int = 8002,
        log: Path | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Prepare a server; nothing runs yet.

        Args:
            repository: an exported model repository.
            gallery: the gallery's SQLite file, made if absent.
            host: address to bind to.
            grpc_port: 0, here and in the other two, chooses a free port.
            http_port: see `grpc_port`.
            metrics_port: see `grpc_port`.
            log: where the server's log goes; None keeps it in a temporary folder until `stop`.
            progress: called with a line of text now and then.

        Raises:
            ServerError: a port is taken.
        """
        self.repository, self.gallery, self.host = repository.resolve(), gallery.resolve(), host
        self.grpc_port, self.http_port, self.metrics_port = _free_ports(host, grpc_port, http_port, metrics_port)
        self.log = log
        self._progress = progress
        self._keeper: subprocess.Popen[bytes] | None = None
        # Triton names its shared memory by this prefix, so that what a crash leaves can be told from others'.
        self._memory_prefix = f"descry_{os.getpid()}_{uuid.uuid4().hex[:8]}_"

    def __enter__(self) -> "TritonServer":
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    @property
    def url(self) -> str:
        """`host:port` for a gRPC client on this machine."""
        return f"{'127.0.0.1' if self.host == '0.0.0.0' else self.host}:{self.grpc_port}"

    @property
    def models(self) -> list[str]:
        """Names of the repository's models."""
        return sorted(path.parent.name for path in self.repository.glob("*/config.pbtxt"))

    def start(self) -> None:
        """Start the server and wait until every model is ready and has answered a first request.

        Raises:
            ServerError: something is missing, or a model does not load.
        """
        self._check_repository()
        wheel = TritonWheel()
        folder = Path(tempfile.mkdtemp(prefix="descry-serve-"))
        self.log = self.log or folder / "triton.log"
        try:
            with _opened(self.log) as log:
                self._keeper = subprocess.Popen(
                    [sys.executable, "-I", "-S", triton_keeper.__file__, *self._command(wheel, folder)],
                    env=wheel.environment() | {"DESCRY_GALLERY": str(self.gallery)},
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # A session of its own: Ctrl-C reaches this process alone, which then stops the server in order.
                    start_new_session=True,
                )
            self._wait_until_ready()
        except BaseException:
            self.stop()
            shutil.rmtree(folder, ignore_errors=True)  # as the keeper does, once there is one
            raise

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Let requests in flight finish for at most `seconds`, end the server and remove what it left."""
        if self._keeper is not None:
            self._keeper.communicate(str(seconds).encode())
            self._keeper = None

    def alive(self) -> bool:
        """Whether the server runs and no model's process died."""
        if self._keeper is None or self._keeper.poll() is not None:
            return False
        try:
            self._probe()
        except DescryError as error:
            # A busy server may miss the deadline and a full disk fails a write: a restart would help neither.
            return DEAD_MODEL not in str(error)
        return True

    def _check_repository(self) -> None:
        exported = [self.repository / "gallery_search" / "fusion.json"]
        exported += [path.parents[1] / "1" / "model.pt" for path in self.repository.glob("*/configs/local.pbtxt")]
        if not self.models:
            raise ServerError(f"{self.repository} is not a model repository: it holds no MODEL/config.pbtxt")
        for path in exported:
            if not path.is_file():
                raise ServerError(
                    f"{path} is missing: run `python -m descry.export CHECKPOINT --repository {self.repository}`"
                )

    def _command(self, wheel: TritonWheel, folder: Path) -> list[str]:
        """Arguments of the keeper, of which the server's command is the tail."""
        return [
            str(STOP_SECONDS),
            self._memory_prefix,
            str(folder),
            str(wheel.binary),
            f"--model-repository={self.repository}",
            "--model-config-name=local",
            f"--backend-directory={wheel.link_backends(folder / 'backends')}",
            f"--backend-config=python,shm-region-prefix-name={self._memory_prefix}",
            "--disable-auto-complete-config",
            "--exit-on-error=true",
            f"--exit-timeout-secs={STOP_SECONDS - 5}",
            f"--grpc-address={self.host}",
            f"--grpc-port={self.grpc_port}",
            f"--http-address={self.host}",
            f"--http-port={self.http_port}",
            f"--metrics-address={self.host}",
            f"--metrics-port={self.metrics_port}",
        ]

    def _wait_until_ready(self) -> None:
        started = told = time.monotonic()
        waiting = self.models
        with triton.InferenceServerClient(self.url, channel_args=CHANNEL) as client:
            while waiting:
                now = time.monotonic()
                if complaints := self._complaints():
                    raise ServerError("\n".join(complaints))
                if self._keeper is None or self._keeper.poll() is not None:
                    raise ServerError(f"the server did not start:\n{self._last_lines()}")
                if now - started > START_SECONDS:
                    raise ServerError(f"not ready after {START_SECONDS} s: {', '.join(waiting)}\n{self._last_lines()}")
                if now - told > TELL_SECONDS:
                    self._progress(f"waiting for {', '.join(waiting)} ({now - started:.0f} s)")
                    told = now
                time.sleep(POLL_SECONDS)
                waiting = [model for model in waiting if not _is_ready(client, model)]
        try:
            self._probe()
        except DescryError as error:
            raise ServerError(f"the first request failed: {error}") from error
        self._progress(f"all {len(self.models)} models ready after {time.monotonic() - started:.1f} s")

    def _probe(self) -> None:
        """Ask something of every model: between them the calls pass through all of them.

        Raises:
            DescryError: a call failed.
        """
        with SearchClient(self.url, timeout=PROBE_SECONDS) as client:
            group = client.schema.groups[0]
            statement = {group.name: group.values[0]}
            image = Image.new("RGB", (8, 16))
            client.match(image, statement)
            client.delete([PROBED_ID])
            with suppress(GalleryEmpty):
                client.similar(image, statement, k=1)

    def _complaints(self) -> list[str]:
        """What Descry's own models said in the log: why they refuse to load."""
        text = self.log.read_text(errors="replace") if self.log else ""
        # The log quotes a message with escaped line ends, and shows it in a table as well.
        return list(dict.fromkeys(re.findall(r"descry: (.+?)(?:\\n| *\||$)", text, re.MULTILINE)))

    def _last_lines(self) -> str:
        text = self.log.read_text(errors="replace") if self.log else ""
        return "\n".join(text.strip().splitlines()[-LOG_LINES_SHOWN:])


def serve(
    repository: Path,
    gallery: Path,
    host: str = "127.0.0.1",
    grpc_port: int = 8001,
    http_port: int = 8000,
    metrics_port: int = 8002,
    log: Path | None = None,
) -> int:
    """Serve until SIGTERM or Ctrl-C; start again when the server or one of its models dies. See `TritonServer`.

    Returns:
        The exit status: 0 after a stop, 1 when the server cannot start.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            _say(f"starting Triton on {repository}")
            with TritonServer(repository, gallery, host, grpc_port, http_port, metrics_port, log, _say) as server:
                # After a restart clients must find the same ports.
                grpc_port, http_port, metrics_port = server.grpc_port, server.http_port, server.metrics_port
                _say(f"serving gRPC on {host}:{grpc_port} (HTTP {http_port}, metrics {metrics_port}); Ctrl-C stops")
                while server.alive():
                    time.sleep(CHECK_SECONDS)
                _say("a model died; starting again")
                # Triton waits for a dead model as long as it may.
                server.stop(DEAD_STOP_SECONDS)
    except KeyboardInterrupt:
        _say("stopped")
        return 0
    except ServerError as error:
        _say(f"descry serve: {error}")
        return 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _opened(log: Path) -> BinaryIO:
    try:
        return log.open("wb")
    except OSError as error:
        raise ServerError(f"cannot write the log {log}: {error.strerror}") from error


def _free_ports(host: str, *wanted: int) -> list[int]:
    """The ports wanted, 0 replaced by a free one.

    Raises:
        ServerError: a port is in use, or the host is not this machine's.
    """
    with ExitStack() as held:
        ports = []
        for port in wanted:
            try:
                ports.append(held.enter_context(socket.create_server((host, port))).getsockname()[1])
            except OSError as error:
                raise ServerError(
                    f"cannot listen on {host}:{port} ({error.strerror}): stop what uses it or choose another port"
                ) from error
        return ports


def _is_ready(client: triton.InferenceServerClient, model: str) -> bool:
    with suppress(InferenceServerException):
        return bool(client.is_model_ready(model))
    return False
