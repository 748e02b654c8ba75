"""What `descry serve` serves, how and to whom, as frozen dataclasses; `serve_settings.py` reads them.

The configuration holds no secret, only the names of files that do, so that it can be printed and kept anywhere.
"""

import ipaddress
import json
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from descry.client.triton_wheel import ServerError

LOOPBACK = "127.0.0.1"
MEBIBYTE = 2**20
MOST_PORT = 65_535


def setting(help: str, default: Any = MISSING) -> Any:
    """A field with the line that `descry serve --help` shows for it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class ServerSection:
    """What is served, and where."""

    repository: Path = setting("an exported model repository, as `descry-export` leaves it")
    gallery: Path = setting("the gallery's SQLite file; made where it is missing")
    host: str = setting("address that gRPC listens at", LOOPBACK)
    grpc_port: int = setting("0, here and in the others, chooses a free port", 8001)
    http_port: int | None = setting(
        "Triton's HTTP endpoint, without TLS, hence on 127.0.0.1 only; off by default", None
    )
    metrics_port: int = setting("Prometheus metrics, without TLS", 8002)
    metrics_host: str = setting("address that the metrics listen at", LOOPBACK)
    log: Path | None = setting("where the server's log goes; else to a temporary folder while the server runs", None)
    model_control: bool = setting("whoever holds the control key (keys.control) may load and unload models", False)
    insecure: bool = setting("allow a host that other machines reach, without TLS and keys", False)


@dataclass(frozen=True)
class TLSSection:
    """TLS of gRPC; all files are PEM."""

    certificate: Path | None = setting(
        "the server's certificate, with any between it and its authority; turns on TLS", None
    )
    key: Path | None = setting("the private key of the certificate", None)
    authority: Path | None = setting("certificate of the authority: what clients give as --tls-ca", None)
    mutual: bool = setting("let in only clients with a certificate of the authority", False)
    name: str | None = setting("a name in the certificate for the server's own health check, if not the host", None)
    probe_certificate: Path | None = setting("with mutual: the health check's certificate; else the server's", None)
    probe_key: Path | None = setting("the private key of the health check's certificate", None)


@dataclass(frozen=True)
class KeysSection:
    """Who may call."""

    file: Path | None = setting("hashed keys, made by `descry keys add`; without, nobody is asked for a key", None)
    control: Path | None = setting("file with the key of Triton's model control; else one that nobody knows", None)


@dataclass(frozen=True)
class AuditSection:
    """The audit log."""

    enabled: bool = setting("write one", True)
    file: Path | None = setting("where; else beside the gallery, as GALLERY.audit.jsonl", None)
    rotate_mib: int = setting("size in MiB from which it goes on in a new file", 64)


@dataclass(frozen=True)
class LimitsSection:
    """What one request may hold."""

    image_mib: int = setting("size of an encoded image, in MiB", 32)
    batch: int = setting("rows", 1024)


@dataclass(frozen=True)
class ServeConfig:
    """Everything that `descry serve` depends on."""

    server: ServerSection
    tls: TLSSection = field(default_factory=TLSSection)
    keys: KeysSection = field(default_factory=KeysSection)
    audit: AuditSection = field(default_factory=AuditSection)
    limits: LimitsSection = field(default_factory=LimitsSection)

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, or would be open to other machines by accident.

        Raises:
            ServerError: the message names the setting and what to do.
        """
        server, tls = self.server, self.tls
        for name, first, second in (
            ("tls.certificate and tls.key", tls.certificate, tls.key),
            ("tls.probe_certificate and tls.probe_key", tls.probe_certificate, tls.probe_key),
        ):
            if (first is None) != (second is None):
                raise ServerError(f"{name} belong together: give both")
        if tls.certificate is None and (tls.mutual or tls.authority or tls.probe_certificate):
            raise ServerError("tls.certificate and tls.key are missing: without them there is no TLS")
        if tls.certificate is not None and tls.authority is None:
            raise ServerError("tls.authority is missing: the certificate of the authority that signed tls.certificate")
        if server.model_control and self.keys.control is None:
            raise ServerError("server.model_control needs keys.control: the file with the key that closes it to others")
        for name, value in (("audit.rotate_mib", self.audit.rotate_mib), *_named("limits", self.limits)):
            if value < 1:
                raise ServerError(f"{name} is a whole number from 1 on, not {value}")
        for name, port in _named("server", server):
            if name.endswith("_port") and port is not None and not 0 <= port <= MOST_PORT:
                raise ServerError(f"{name} is a number from 0 to {MOST_PORT}, not {port}")
        self._refuse_open_doors()

    def _refuse_open_doors(self) -> None:
        server = self.server
        if is_loopback(server.host) or server.insecure:
            return
        if server.http_port is not None:
            raise ServerError("server.http_port: Triton has no TLS for HTTP; leave it out: others ask over gRPC")
        needed = {"tls.certificate": self.tls.certificate, "keys.file": self.keys.file}
        if missing := [name for name, value in needed.items() if value is None]:
            raise ServerError(
                f"server.host {server.host} is open to other machines without {' and '.join(missing)}: "
                "set them (docs/security.md), or --insecure lets in everybody who reaches it"
            )

    @property
    def audit_file(self) -> Path | None:
        """Where the audit log goes; None writes none."""
        return (self.audit.file or self.server.gallery.with_suffix(".audit.jsonl")) if self.audit.enabled else None

    def to_yaml(self) -> str:
        """All values, resolved: a file for `--config`."""
        lines = []
        for section in fields(self):
            lines.append(f"{section.name}:")
            for name, value in vars(getattr(self, section.name)).items():
                lines.append(f"  {name}: {json.dumps(str(value) if isinstance(value, Path) else value)}")
        return "\n".join(lines)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _named(section: str, values: Any) -> list[tuple[str, Any]]:
    return [(f"{section}.{name}", value) for name, value in vars(values).items()]
