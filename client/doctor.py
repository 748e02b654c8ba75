"""What `descry doctor` looks at, from versions to a self-test query; none of the looks stops another."""

import importlib.metadata
import json
import platform
import shutil
import socket
import sqlite3
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from descry.client.audit import check_audit
from descry.client.errors import DescryError
from descry.client.health import answer_a_query
from descry.client.keys import OTHERS, read_key_file
from descry.client.results import TLS
from descry.client.search import SearchClient
from descry.client.serve_config import LOOPBACK, ServeConfig

DISTRIBUTIONS = ("descry-search", "numpy", "pillow", "tritonclient", "nvidia-pytriton", "pyyaml")
LEAST_FREE_GIB = 5
CERTIFICATE_DAYS = 30
PROBE_SECONDS = 5


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    state: Literal["ok", "warning", "problem"]
    subject: str
    detail: str


def examine(config: ServeConfig | None, connect: Callable[[], SearchClient], tls: TLS | None) -> Iterator[Finding]:
    """Look at this machine, at what `config` names if it is given, and at the server that `connect` reaches."""
    yield from _versions()
    yield _gpu()
    if config is not None:
        for look in (_repository, _gallery, _disk, _ports, _secrets, _audit):
            try:
                yield from look(config)
            except (OSError, ValueError, sqlite3.Error, DescryError) as error:
                yield Finding("problem", look.__name__.strip("_"), str(error))
    yield from _server(config, connect, tls)


def _versions() -> Iterator[Finding]:
    yield Finding("ok", "python", platform.python_version())
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        yield Finding("ok", name, found[name])
    if "nvidia-pytriton" in found and int(found["numpy"].split(".")[0]) >= 2:
        yield Finding(
            "problem", "numpy", f"{found['numpy']}: the Triton server of this environment needs numpy below 2"
        )


def _gpu() -> Finding:
    program = shutil.which("nvidia-smi")
    if program is None:
        return Finding("ok", "gpu", "none; the models run on the CPU")
    query = [program, "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30)
    if answer.returncode:
        return Finding("warning", "gpu", f"nvidia-smi fails: {(answer.stderr or answer.stdout).strip()[:100]}")
    return Finding("ok", "gpu", "; ".join(answer.stdout.strip().splitlines()))


def _repository(config: ServeConfig) -> Iterator[Finding]:
    folder = config.server.repository
    missing = [
        path.parents[1].name
        for path in folder.glob("*/configs/local.pbtxt")
        if not (path.parents[1] / "1" / "model.pt").is_file()
    ]
    if missing or not (folder / "gallery_search" / "fusion.json").is_file():
        names = ", ".join(missing) or "fusion.json"
        yield Finding(
            "problem", "repository", f"{folder} is not exported: {names} missing: run python -m descry.export"
        )
        return
    yield Finding("ok", "repository", f"{folder}: model {_exported_digest(config)}")


def _gallery(config: ServeConfig) -> Iterator[Finding]:
    path = config.server.gallery
    if not path.is_file():
        yield Finding("warning", "gallery", f"{path} does not exist yet: descry index FOLDER fills it")
        return
    with closing(sqlite3.connect(f"file:{path.resolve()}?mode=ro", uri=True)) as connection:
        damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        rows = connection.execute("SELECT count(*) FROM crop").fetchone()[0]
        digest = connection.execute("SELECT value FROM meta WHERE key = 'model_digest'").fetchone()[0]
    if damage != "ok":
        yield Finding("problem", "gallery", f"{path} is damaged: {damage}: restore a backup")
        return
    yield Finding("ok", "gallery", f"{path}: {rows} rows, structure sound")
    if digest != (expected := _exported_digest(config)):
        yield Finding("problem", "gallery", f"made with model {digest}, not with the repository's {expected}")


def _disk(config: ServeConfig) -> Iterator[Finding]:
    places = {"gallery": config.server.gallery.resolve().parent}
    if config.audit_file:
        places["audit log"] = config.audit_file.resolve().parent
    for what, folder in places.items():
        free = shutil.disk_usage(folder).free / 2**30
        state: Literal["ok", "warning"] = "ok" if free >= LEAST_FREE_GIB else "warning"
        yield Finding(state, "disk", f"{free:.1f} GiB free for the {what} in {folder}")


def _ports(config: ServeConfig) -> Iterator[Finding]:
    server = config.server
    hosts = {"grpc_port": server.host, "http_port": LOOPBACK, "metrics_port": server.metrics_host}
    for name, host in hosts.items():
        port = getattr(server, name)
        if port:
            with socket.socket() as probe:
                probe.settimeout(PROBE_SECONDS)
                taken = probe.connect_ex((LOOPBACK if host == "0.0.0.0" else host, port)) == 0
            yield Finding("ok", "ports", f"{name} {host}:{port} {'in use' if taken else 'free'}")


def _secrets(config: ServeConfig) -> Iterator[Finding]:
    files = {"keys.file": config.keys.file, "keys.control": config.keys.control, "tls.key": config.tls.key}
    for name, path in files.items():
        if path is None:
            continue
        if path.stat().st_mode & OTHERS:
            yield Finding("problem", name, f"others on this machine may read {path}: chmod 600 {path}")
        else:
            yield Finding("ok", name, f"{path}: only its owner may read it")
    if config.keys.file is not None:
        entries = read_key_file(config.keys.file)
        names = ", ".join(f"{entry.name} ({'+'.join(entry.roles)})" for entry in entries)
        yield Finding("ok" if entries else "warning", "keys", names or "no key: nobody gets in")


def _audit(config: ServeConfig) -> Iterator[Finding]:
    path = config.audit_file
    if path is None:
        yield Finding("warning", "audit log", "off: nobody can tell afterwards who searched for whom")
    elif not path.exists():
        yield Finding("ok", "audit log", f"{path}: made with the first call")
    else:
        check = check_audit(path)
        yield from (Finding("problem", "audit log", problem) for problem in check.problems)
        if not check.problems:
            yield Finding("ok", "audit log", f"{path}: {check.lines} entries, chain sound")


def _server(config: ServeConfig | None, connect: Callable[[], SearchClient], tls: TLS | None) -> Iterator[Finding]:
    try:
        with connect() as client:
            if tls is not None:
                yield _certificate(client.url, tls)
            served = client.model.model_digest
            yield Finding("ok", "server", f"{client.url}: model {served}, method {client.model.method}")
            if config is not None and served != (expected := _exported_digest(config)):
                yield Finding("problem", "server", f"serves model {served}, not the repository's {expected}")
            started = time.monotonic()
            answer_a_query(client)
            yield Finding("ok", "self-test", f"answered a query in {(time.monotonic() - started) * 1000:.0f} ms")
    except (DescryError, OSError, ValueError) as error:
        yield Finding("problem", "server", str(error))


def _certificate(url: str, tls: TLS) -> Finding:
    """How long the server's certificate is good for."""
    context = ssl.create_default_context(cafile=str(tls.root_certificates) if tls.root_certificates else None)
    context.set_alpn_protocols(["h2"])
    if tls.certificate_chain:
        context.load_cert_chain(tls.certificate_chain, tls.private_key)
    host, _, port = url.rpartition(":")
    with (
        socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=tls.server_name or host.strip("[]")) as secure,
    ):
        ends = str((secure.getpeercert() or {})["notAfter"])
    days = (ssl.cert_time_to_seconds(ends) - time.time()) / 86400
    return Finding(
        "ok" if days >= CERTIFICATE_DAYS else "warning", "certificate", f"good for {days:.0f} days, to {ends}"
    )


def _exported_digest(config: ServeConfig) -> str:
    content = json.loads((config.server.repository / "gallery_search" / "fusion.json").read_text(encoding="utf-8"))
    return str(content["model_digest"])
