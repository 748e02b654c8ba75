"""Runs Triton on this machine, without a container, for `descry serve` and the tests."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from descry.client import triton_keeper
from descry.client.errors import DescryError
from descry.client.health import answer_a_query, change_nothing
from descry.client.keys import KEY_HEADER
from descry.client.ports import with_free_ports
from descry.client.results import TLS
from descry.client.search import SearchClient
from descry.client.serve_config import LOOPBACK, ServeConfig, ServerSection
from descry.client.triton_command import EXIT_SECONDS, TritonCommand
from descry.client.triton_wheel import ServerError, TritonWheel

START_SECONDS = 300
STOP_SECONDS = EXIT_SECONDS + 5
DEAD_STOP_SECONDS = 4
PROBE_SECONDS = 60
POLL_SECONDS = 0.2
TELL_SECONDS = 5
CHECK_SECONDS = 10
LOG_LINES_SHOWN = 8
# What Triton answers for ever once a Python model's process died; its readiness calls do not tell.
DEAD_MODEL = "is not healthy"


class TritonServer:
    """A Triton server as a context manager: every model answers on entry, all is gone on exit.

    Attributes:
        config: what was asked for, with absolute paths and the ports chosen.
        log: the server's log; None before the start, unless it was given.
    """

    def __init__(
        self,
        repository: Path,
        gallery: Path,
        host: str = LOOPBACK,
        grpc_port: int = 8001,
        http_port: int | None = None,
        metrics_port: int = 8002,
        log: Path | None = None,
        progress: Callable[[str], None] = lambda line: None,
        **settings: Any,
    ) -> None:
        """Prepare a server; nothing runs yet. Every setting of `ServeConfig` may be given.

        Args:
            repository: an exported model repository.
            gallery: the gallery's SQLite file, made if absent.
            host: address that gRPC listens at.
            grpc_port: 0, here and in the other two, chooses a free port.
            http_port: None is off.
            metrics_port: see `grpc_port`.
            log: where the server's log goes; None keeps it in a temporary folder until `stop`.
            progress: called with a line of text now and then.
            settings: further fields of `ServerSection`, and the other sections of `ServeConfig` by their names.

        Raises:
            ServerError: a setting contradicts another, or a port is taken.
        """
        sections = {name: settings.pop(name) for name in ("tls", "keys", "audit", "limits") if name in settings}
        server = ServerSection(
            repository.resolve(), gallery.resolve(), host, grpc_port, http_port, metrics_port, log=log, **settings
        )
        self.config = ServeConfig(with_free_ports(server), **sections)
        self.log = log
        self._progress = progress
        self._keeper: subprocess.Popen[bytes] | None = None
        self._command: TritonCommand | None = None
        # Triton names its shared memory by this prefix, so that what a crash leaves can be told from others'.
        self._memory_prefix = f"descry_{os.getpid()}_{uuid.uuid4().hex[:8]}_"

    @classmethod
    def of(cls, config: ServeConfig, progress: Callable[[str], None] = lambda line: None) -> "TritonServer":
        """The server that a configuration describes.

        Raises:
            ServerError: as above.
        """
        sections = {name: section for name, section in vars(config).items() if name != "server"}
        return cls(**vars(config.server), **sections, progress=progress)

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
    def grpc_port(self) -> int:
        """What a client asks."""
        return self.config.server.grpc_port

    @property
    def metrics_port(self) -> int:
        """Prometheus metrics, for operators."""
        return self.config.server.metrics_port

    @property
    def url(self) -> str:
        """`host:port` for a gRPC client on this machine."""
        host = {"0.0.0.0": LOOPBACK, "::": "[::1]"}.get(self.config.server.host, self.config.server.host)
        return f"{host}:{self.grpc_port}"

    @property
    def models(self) -> list[str]:
        """Names of the repository's models."""
        return sorted(path.parent.name for path in self.config.server.repository.glob("*/config.pbtxt"))

    @property
    def control_headers(self) -> dict[str, str]:
        """What opens Triton's own model control and statistics, once the server runs."""
        return self._command.control_headers if self._command else {}

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
            self._command = TritonCommand(self.config, wheel, folder, self._memory_prefix)
            keeper = [triton_keeper.__file__, str(STOP_SECONDS), self._memory_prefix, str(folder)]
            with _opened(self.log) as log:
                self._keeper = subprocess.Popen(
                    [sys.executable, "-I", "-S", *keeper, *self._command.arguments()],
                    env=self._command.environment(),
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
        # First forgotten: where a second Ctrl-C breaks this off, the keeper ends the server once this process is gone.
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.communicate(str(seconds).encode())

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
        repository = self.config.server.repository
        exported = [repository / "gallery_search" / "fusion.json"]
        exported += [path.parents[1] / "1" / "model.pt" for path in repository.glob("*/configs/local.pbtxt")]
        if not self.models:
            raise ServerError(f"{repository} is not a model repository: it holds no MODEL/config.pbtxt")
        for path in exported:
            if not path.is_file():
                raise ServerError(
                    f"{path} is missing: run `python -m descry.export CHECKPOINT --repository {repository}`"
                )

    def _wait_until_ready(self) -> None:
        started = told = time.monotonic()
        waiting = self.models
        with self._client() as client:
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
                waiting = [model for model in waiting if not client.is_ready(model)]
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
        with self._client() as client:
            answer_a_query(client)
            change_nothing(client)

    def _client(self) -> SearchClient:
        """A client with the health check's own key and certificate."""
        tls, key = self.config.tls, self._command.probe_key if self._command else ""
        certificates = None if tls.certificate is None else TLS(tls.authority, server_name=tls.name)
        if certificates is not None and tls.mutual:
            private_key, chain = tls.probe_key or tls.key, tls.probe_certificate or tls.certificate
            certificates = replace(certificates, private_key=private_key, certificate_chain=chain)
        return SearchClient(self.url, timeout=PROBE_SECONDS, tls=certificates, headers={KEY_HEADER: key})

    def _complaints(self) -> list[str]:
        """What Descry's own models said in the log: why they refuse to load."""
        text = self.log.read_text(errors="replace") if self.log else ""
        # The log quotes a message with escaped line ends, and shows it in a table as well.
        return list(dict.fromkeys(re.findall(r"descry: (.+?)(?:\\n| *\||$)", text, re.MULTILINE)))

    def _last_lines(self) -> str:
        text = self.log.read_text(errors="replace") if self.log else ""
        return "\n".join(text.strip().splitlines()[-LOG_LINES_SHOWN:])


def serve(config: ServeConfig) -> int:
    """Serve until SIGTERM or Ctrl-C; start again when the server or one of its models dies.

    Returns:
        The exit status: 0 after a stop, 1 when the server cannot start.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            server = TritonServer.of(config, _say)
            if server.config != config:
                # Paths and ports are resolved now; after a restart clients must find the same ports.
                config = server.config
                _say(config.to_yaml())
            with server:
                _say(f"serving {_addresses(config)}; Ctrl-C stops")
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


def _addresses(config: ServeConfig) -> str:
    server = config.server
    http = "" if server.http_port is None else f"HTTP {server.http_port}, "
    secure = {True: "with TLS", False: "without TLS"}[config.tls.certificate is not None]
    return f"gRPC on {server.host}:{server.grpc_port} {secure} ({http}metrics {server.metrics_port})"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _opened(log: Path) -> BinaryIO:
    try:
        return log.open("wb")
    except OSError as error:
        raise ServerError(f"cannot write the log {log}: {error.strerror}") from error
