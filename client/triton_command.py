"""The command line and the environment of a Triton server: what is closed to clients, and what its models are told."""

import hashlib
import secrets
from pathlib import Path

from descry.client.serve_config import LOOPBACK, MEBIBYTE, ServeConfig
from descry.client.triton_wheel import ServerError, TritonWheel

EXIT_SECONDS = 30
# The gRPC metadata that reach the models, as parameters of the request.
FORWARDED = "(?i)^descry-(key|user)$"
# Closed to whoever has not the control key. Left open: inference, whose models ask for keys, health and metadata.
RESTRICTED = "model-repository,model-config,shared-memory,statistics,trace,logging"
CONTROL_HEADER = "descry-control"


class TritonCommand:
    """How one server is started.

    Attributes:
        control_headers: gRPC metadata that opens `RESTRICTED`.
        probe_key: what the server's own health check sends; made anew for each server, never written down.
    """

    def __init__(self, config: ServeConfig, wheel: TritonWheel, folder: Path, memory_prefix: str) -> None:
        """Take over a configuration whose ports are chosen.

        Args:
            config: the ports are real ones, not 0.
            wheel: where the server is.
            folder: for files that the server needs while it runs.
            memory_prefix: of the names of the server's shared memory.

        Raises:
            ServerError: the file with the control key cannot be read.
        """
        self._config, self._wheel, self._folder, self._memory_prefix = config, wheel, folder, memory_prefix
        self._control_key = _control_key(config.keys.control)
        self.control_headers = {f"triton-grpc-protocol-{CONTROL_HEADER}": self._control_key}
        self.probe_key = secrets.token_urlsafe(32)

    def arguments(self) -> list[str]:
        """The server's command."""
        server = self._config.server
        return [
            str(self._wheel.binary),
            f"--model-repository={server.repository}",
            "--model-config-name=local",
            f"--backend-directory={self._wheel.link_backends(self._folder / 'backends')}",
            f"--backend-config=python,shm-region-prefix-name={self._memory_prefix}",
            "--disable-auto-complete-config",
            "--exit-on-error=true",
            f"--exit-timeout-secs={EXIT_SECONDS}",
            "--log-format=ISO8601",
            f"--grpc-address={server.host}",
            f"--grpc-port={server.grpc_port}",
            f"--grpc-header-forward-pattern={FORWARDED}",
            f"--grpc-restricted-protocol={RESTRICTED}:{CONTROL_HEADER}={self._control_key}",
            f"--metrics-address={server.metrics_host}",
            f"--metrics-port={server.metrics_port}",
            *(["--model-control-mode=explicit", "--load-model=*"] if server.model_control else []),
            *self._http(),
            *self._tls(),
        ]

    def environment(self) -> dict[str, str]:
        """The server's environment, which its Python models read (server_settings.py)."""
        config = self._config
        return self._wheel.environment() | {
            "DESCRY_GALLERY": str(config.server.gallery),
            "DESCRY_KEYS": str(config.keys.file.resolve()) if config.keys.file else "",
            "DESCRY_PROBE": hashlib.sha256(self.probe_key.encode()).hexdigest(),
            "DESCRY_AUDIT": str(config.audit_file.resolve()) if config.audit_file else "off",
            "DESCRY_AUDIT_ROTATE_BYTES": str(config.audit.rotate_mib * MEBIBYTE),
            "DESCRY_LARGEST_IMAGE_BYTES": str(config.limits.image_mib * MEBIBYTE),
            "DESCRY_LARGEST_BATCH": str(config.limits.batch),
        }

    def _http(self) -> list[str]:
        """HTTP, on this machine only: Triton 24.10 has no TLS for it."""
        if self._config.server.http_port is None:
            return ["--allow-http=false"]
        return [
            f"--http-address={LOOPBACK}",
            f"--http-port={self._config.server.http_port}",
            f"--http-header-forward-pattern={FORWARDED}",
            f"--http-restricted-api={RESTRICTED}:{CONTROL_HEADER}={self._control_key}",
        ]

    def _tls(self) -> list[str]:
        tls = self._config.tls
        if tls.certificate is None:
            return []
        return [
            # Mutual replaces the other: Triton takes them for two ways, not for two steps.
            "--grpc-use-ssl-mutual=1" if tls.mutual else "--grpc-use-ssl=1",
            f"--grpc-server-cert={tls.certificate}",
            f"--grpc-server-key={tls.key}",
            f"--grpc-root-cert={tls.authority}",
        ]


def _control_key(path: Path | None) -> str:
    if path is None:
        return secrets.token_urlsafe(32)
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServerError(f"cannot read the control key {path}: {error}") from error
    # Triton splits its flag at these.
    if not key or any(sign in key for sign in ":,= \n"):
        raise ServerError(f"{path} holds no control key: one line without space, comma, colon and equals sign")
    return key
