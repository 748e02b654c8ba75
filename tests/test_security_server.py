"""A real server with mutual TLS, keys and small limits: who gets in, to what, and what the audit log says of it."""

import errno
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from certificates import Authority
from PIL import Image
from tiny_models import ATTRIBUTES, EMBEDDING, FEATURES, HEIGHT, WIDTH
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from descry.client import TLS, AccessDenied, InvalidRequest, SearchClient, ServerFailed, ServerUnavailable
from descry.client.audit import check_audit, read_audit
from descry.client.cli import main
from descry.client.keys import KEY_HEADER, add_key, remove_key
from descry.client.serve import TritonServer
from descry.client.serve_config import KeysSection, LimitsSection, TLSSection

pytestmark = pytest.mark.server
PHOTO = Image.new("RGB", (20, 40), "red")


@dataclass
class Secured:
    """The server, and what its clients hold."""

    server: TritonServer
    folder: Path
    tls: TLS
    keys: dict[str, str]

    def client(self, name: str | None = None, **headers: str) -> SearchClient:
        given = {KEY_HEADER: self.keys[name]} if name else {}
        return SearchClient(self.server.url, timeout=60, tls=self.tls, headers=given | headers)

    def flags(self, name: str) -> list[str]:
        (self.folder / "key").write_text(self.keys[name])
        (self.folder / "key").chmod(0o600)
        files = {"--tls-ca": self.tls.root_certificates, "--tls-cert": self.tls.certificate_chain}
        files |= {"--tls-key": self.tls.private_key, "--key-file": self.folder / "key"}
        return ["--url", self.server.url, *[str(each) for pair in files.items() for each in pair]]

    @property
    def audit(self) -> Path:
        return self.folder / "gallery.audit.jsonl"

    def entries(self, **wanted: object) -> list[dict]:
        return [one for one in read_audit(self.audit) if all(one.get(name) == wanted[name] for name in wanted)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "ca", "Test authority")


@pytest.fixture(scope="module")
def secured(repository: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    keys = {name: add_key(folder / "keys.json", name, roles) for name, roles in ROLES_OF.items()}
    (folder / "control").write_text("the-control-key")
    certificate, key = authority.issue("descry.example")
    chain, private = authority.issue("client.example")
    with TritonServer(
        repository,
        folder / "gallery.sqlite",
        grpc_port=0,
        http_port=0,
        metrics_port=0,
        log=folder / "triton.log",
        # The certificate has no address in it: the health check must know its name.
        tls=TLSSection(certificate, key, authority.certificate, mutual=True, name="descry.example"),
        keys=KeysSection(folder / "keys.json", folder / "control"),
        limits=LimitsSection(image_mib=1, batch=8),
        model_control=True,
    ) as server:
        yield Secured(server, folder, TLS(authority.certificate, private, chain, "descry.example"), keys)


ROLES_OF = {
    "ann": ["search"],
    "camera": ["write"],
    "root": ["admin"],
    "leaver": ["search"],
    "both": ["search", "write"],
}


def test_only_clients_of_the_authority_get_a_connection(secured, authority, tmp_path):
    stranger = Authority(tmp_path / "other", "Another authority")
    chain, key = stranger.issue("client.example")
    without_certificate = TLS(authority.certificate, server_name="descry.example")
    for tls in (
        None,
        without_certificate,
        TLS(authority.certificate, key, chain, "descry.example"),
        TLS(stranger.certificate, secured.tls.private_key, secured.tls.certificate_chain, "descry.example"),
        TLS(authority.certificate, secured.tls.private_key, secured.tls.certificate_chain),  # the name does not fit
    ):
        with SearchClient(secured.server.url, timeout=20, tls=tls, headers={KEY_HEADER: secured.keys["ann"]}) as client:
            with pytest.raises(ServerUnavailable, match="TLS options"):
                client.stats()
    with secured.client("ann") as client:
        assert client.stats().gallery == "gallery.sqlite"


def test_each_role_opens_its_calls_and_no_others(secured):
    calls = {
        "index": lambda client: client.index(PHOTO, "roles/1", {"camera": "roles"}),
        "search": lambda client: client.search({"hat": "yes"}, k=1),
        "similar": lambda client: client.similar(PHOTO, k=1),
        "delete": lambda client: client.delete(["roles/none"]),
        "describe": lambda client: client.describe(PHOTO),
        "match": lambda client: client.match(PHOTO, {"hat": "yes"}),
        "stats": lambda client: client.stats(),
        "prune": lambda client: client.prune(camera="roles-none"),
        "pages": lambda client: next(iter(client.pages())),
    }
    any_key = {"describe", "match", "stats"}
    allowed = {
        "both": set(calls) - {"prune", "pages"},
        "ann": any_key | {"search", "similar"},
        "camera": any_key | {"index", "delete"},
        "root": any_key | {"prune", "pages"},
        None: set(),
    }
    for name, welcome in allowed.items():
        with secured.client("both") as known, secured.client(name) as client:
            client.__dict__["model"] = known.model  # so that only the call itself is asked
            for call, ask in calls.items():
                if call in welcome:
                    ask(client)
                    continue
                with pytest.raises(AccessDenied) as refusal:
                    ask(client)
                wanted = "needs the role" if name else "asks for a key"
                assert wanted in str(refusal.value) and "Traceback" not in str(refusal.value)


def raw(secured: Secured, model: str, headers: dict[str, str], **inputs: np.ndarray) -> triton.InferResult:
    tensors = []
    for name, values in inputs.items():
        tensors.append(triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype)))
        tensors[-1].set_data_from_numpy(values)
    with control_client(secured) as client:
        return client.infer(model, tensors, headers=headers, client_timeout=60)


def control_client(secured: Secured) -> triton.InferenceServerClient:
    tls = secured.tls
    return triton.InferenceServerClient(
        secured.server.url,
        ssl=True,
        root_certificates=tls.root_certificates,
        private_key=tls.private_key,
        certificate_chain=tls.certificate_chain,
        channel_args=[("grpc.ssl_target_name_override", "descry.example")],
    )


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("image_encoder", {"INPUT__0": np.zeros((1, 3, HEIGHT, WIDTH), np.uint8)}),
        ("par_head", {"INPUT__0": np.zeros((1, FEATURES), np.float32)}),
        ("attribute_encoder", {f"INPUT__{index}": np.zeros((1, ATTRIBUTES), np.float32) for index in (0, 1)}),
        ("decode_image", {"image": np.array([[b"x"]], np.object_)}),
        ("gallery_info", {"request": np.array([[b'{"about": "stats"}']], np.object_)}),
        ("gallery_admin", {"request": np.array([[b'{"do": "compact"}']], np.object_)}),
        (
            "gallery_write",
            {name: np.array([[b"delete"]], np.object_) for name in ("id", "metadata", "operation")},
        ),
        (
            "gallery_search",
            {
                "query": np.zeros((1, EMBEDDING), np.float32),
                "attributes": np.zeros((1, ATTRIBUTES), np.float32),
                "known": np.zeros((1, ATTRIBUTES), np.float32),
                "par_weight": np.zeros((1, 1), np.float32),
                "k": np.ones((1, 1), np.int32),
                "filter": np.array([[b"{}"]], np.object_),
            },
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_model_inside_is_a_way_around_the_key(secured, model, inputs):
    for headers in ({}, {KEY_HEADER: "descry_guess"}, {"descry-key-2": secured.keys["both"]}):
        with pytest.raises(InferenceServerException) as refusal:
            raw(secured, model, headers, **inputs)
        assert refusal.value.status() == "StatusCode.UNIMPLEMENTED"
        assert refusal.value.message().startswith("access denied: ")


def test_a_key_in_two_places_or_with_signs_of_json_does_not_pass(secured):
    request = {"request": np.array([[b'{"about": "stats"}']], np.object_)}
    for wrong in ('x","descry-key":"' + secured.keys["ann"], '\\"', "{}", "a" * 4000):
        with pytest.raises(InferenceServerException, match="access denied"):
            raw(secured, "gallery_info", {KEY_HEADER: wrong}, **request)
    assert raw(secured, "gallery_info", {KEY_HEADER: secured.keys["ann"]}, **request).as_numpy("response").size == 1


def test_a_removed_key_is_refused_from_the_next_call_on(secured):
    with secured.client("leaver") as client:
        assert client.stats()
        remove_key(secured.folder / "keys.json", "leaver")
        with pytest.raises(AccessDenied, match="has been removed"):
            client.stats()


def test_tritons_own_protocols_are_closed_but_to_the_control_key(secured):
    closed = {
        "load": lambda client, headers: client.load_model("match", headers=headers),
        "unload": lambda client, headers: client.unload_model("nothing", headers=headers),
        "repository": lambda client, headers: client.get_model_repository_index(headers=headers),
        "configuration": lambda client, headers: client.get_model_config("match", headers=headers),
        "shared memory": lambda client, headers: client.get_system_shared_memory_status(headers=headers),
        "statistics": lambda client, headers: client.get_inference_statistics(headers=headers),
        "trace": lambda client, headers: client.get_trace_settings(headers=headers),
        "log": lambda client, headers: client.get_log_settings(headers=headers),
    }
    with control_client(secured) as client:
        for headers in ({}, {KEY_HEADER: secured.keys["root"]}, {"triton-grpc-protocol-descry-control": "guess"}):
            for call in closed.values():
                with pytest.raises(InferenceServerException, match="This protocol is restricted"):
                    call(client, headers)
            with pytest.raises(InferenceServerException, match="This protocol is restricted"):
                client.register_system_shared_memory("mine", "/descry_none", 64, headers=headers)
        for name in ("load", "repository", "statistics"):
            closed[name](client, secured.server.control_headers)
    with secured.client("ann") as client:
        assert client.match(PHOTO, {"hat": "yes"})


def test_http_is_bound_to_this_machine_and_asks_for_the_same_keys(secured):
    port = secured.server.config.server.http_port
    request = {"inputs": [{"name": "request", "shape": [1, 1], "datatype": "BYTES", "data": ['{"about": "stats"}']}]}

    def post(path: str, content: dict, **headers: str) -> tuple[int, str]:
        address = f"http://127.0.0.1:{port}/v2/{path}"
        sent = urllib.request.Request(address, json.dumps(content).encode(), headers, method="POST")
        try:
            with urllib.request.urlopen(sent, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    code, text = post("models/gallery_info/infer", request)
    assert code >= 400 and "access denied" in text
    code, text = post("models/gallery_info/infer", request, **{"descry-key": secured.keys["ann"]})
    assert code == 200 and "rows" in text
    for path in ("repository/index", "systemsharedmemory/region/a/register", "repository/models/match/load"):
        assert post(path, {})[0] == 403


def test_large_images_and_batches_are_refused_with_their_limit(secured):
    with secured.client("ann") as client:
        with pytest.raises(InvalidRequest, match=r"cannot decode image: 1.1 MiB, above this server's 1 MiB"):
            client.describe(bytes(int(1.1 * 2**20)))
    request = {"request": np.array([[b'{"about": "stats"}']] * 9, np.object_)}
    with pytest.raises(InferenceServerException, match="9 rows in one request, above this server's 8"):
        raw(secured, "gallery_info", {KEY_HEADER: secured.keys["ann"]}, **request)


def test_an_image_reference_is_kept_and_never_opened(secured):
    """A pipe as reference: whoever opened it to read would be seen by a writer that does not wait."""
    pipe = secured.folder / "pipe"
    os.mkfifo(pipe)
    with secured.client("both") as client:
        client.index(PHOTO, "reference/pipe", {"image": str(pipe), "camera": "reference"})
        client.index(PHOTO, "reference/file", {"image": "../../../../etc/passwd", "camera": "reference"})
        hits = client.search({"hat": "yes"}, cameras=["reference"])
        assert {hit.image for hit in hits} == {str(pipe), "../../../../etc/passwd"}
        assert "root:" not in json.dumps([dict(hit.metadata) for hit in hits])
        with pytest.raises(OSError) as nobody:
            os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        assert nobody.value.errno == errno.ENXIO
        # A path where an image belongs is no image.
        with pytest.raises(InvalidRequest, match="cannot decode image"):
            client.describe(b"/etc/passwd")


def test_every_call_is_in_the_audit_log_before_it_is_answered(secured):
    with secured.client("both", **{"descry-user": "eve@example.org"}) as client:
        client.index(PHOTO, "audit/1", {"camera": "audit"})
        before = len(secured.entries())
        client.search({"gender": "female", "upper_color": "red"}, k=3, cameras=["audit"])
        entry = list(read_audit(secured.audit))[-1]
        assert len(secured.entries()) == before + 1
    assert (entry["who"], entry["user"], entry["action"]) == ("both", "eve@example.org", "gallery_search")
    assert (entry["outcome"], entry["results"], len(entry["request"])) == ("ok", 1, 32)
    asked = entry["asked"]
    assert asked["stated"]["gender=female"] == 1 and asked["stated"]["upper_color=red"] == 1 and asked["k"] == 3
    assert asked["stated"]["upper_color=black"] == 0 and "hat=yes" not in asked["stated"]
    assert json.loads(asked["filter"]) == {"camera": ["audit"]}
    (written,) = [one for one in secured.entries(action="gallery_write") if one.get("asked", {}).get("id") == "audit/1"]
    assert written["outcome"] == "asked" and written["asked"]["operation"] == "put" and written["user"]
    with secured.client("root") as client:
        client.prune(camera="audit-none")
    (pruned,) = [one for one in secured.entries(action="gallery_admin") if "audit-none" in str(one.get("asked"))]
    assert (pruned["who"], pruned["outcome"]) == ("root", "asked")
    with secured.client() as client, pytest.raises(AccessDenied):
        client.delete(["audit/1"])
    denied = list(read_audit(secured.audit))[-1]
    assert (denied["who"], denied["outcome"]) == ("-", "denied") and "asked" not in denied
    assert check_audit(secured.audit).problems == []


def test_health_checks_are_marked_and_health_and_doctor_see_the_server(secured, capsys):
    probes = secured.entries(action="probe")
    assert {one["who"] for one in probes} == {"descry-serve"} and all(one.get("results", 0) == 0 for one in probes)
    searches = len(secured.entries(action="gallery_search"))
    assert main(["health", *secured.flags("ann")]) == 1 and "secure connection failed" in capsys.readouterr().err
    flags = [*secured.flags("ann"), "--tls-name", "descry.example"]
    assert main(["health", *flags]) == 0 and "answers queries" in capsys.readouterr().out
    assert len(secured.entries(action="gallery_search")) == searches
    config = secured.folder / "serve.yaml"
    config.write_text(secured.server.config.to_yaml())
    assert main(["doctor", *flags, "--config", str(config), "--json"]) in (0, 1)
    findings = json.loads(capsys.readouterr().out)["findings"]
    states = {one["subject"]: one["state"] for one in findings}
    expected = ("server", "self-test", "repository", "gallery", "audit log", "tls.key", "keys.file", "certificate")
    assert {states[subject] for subject in expected} == {"ok"}
    # The control key was written with everybody's right to read it.
    assert [one["subject"] for one in findings if one["state"] == "problem"] == ["keys.control"]


def test_refusals_are_in_the_servers_log_with_their_request(secured):
    lines = [line for line in (secured.folder / "triton.log").read_text().splitlines() if '\\"event\\"' in line]
    events = [json.loads(json.loads(line[line.index('"') :])) for line in lines]
    denied = [event for event in events if event["event"] == "denied" and event["model"] == "gallery_write"]
    assert denied and all(len(event["request"]) in (0, 32) for event in denied)
    assert not [event for event in events if "traceback" in event]
    text = (secured.folder / "triton.log").read_text() + secured.audit.read_text()
    assert not [name for name, key in secured.keys.items() if key in text]


def test_without_an_audit_log_nothing_is_answered(secured):
    """The lock file is replaced by a folder, so that the log cannot be written, not even by the system's owner."""
    lock = secured.folder / "gallery.audit.jsonl.lock"
    kept = lock.rename(lock.with_suffix(".kept"))
    lock.mkdir()
    try:
        with secured.client("both") as client:
            rows = client.stats().rows
            for ask in (
                lambda: client.search({"hat": "yes"}, k=1),
                lambda: client.index(PHOTO, "audit/unwritten"),
                lambda: client.delete(["audit/1"]),
            ):
                with pytest.raises(ServerFailed, match="audit log gallery.audit.jsonl cannot be written"):
                    ask()
            assert client.stats().rows == rows and client.missing(["audit/1", "audit/unwritten"]) == ["audit/unwritten"]
        assert main(["health", *secured.flags("ann"), "--tls-name", "descry.example"]) == 1
    finally:
        lock.rmdir()
        kept.rename(lock)
    with secured.client("both") as client:
        assert client.search({"hat": "yes"}, k=1)
    assert check_audit(secured.audit).problems == []
