"""What the client says when something fails."""

import io
import shutil
import subprocess
import time
from concurrent import futures

import grpc
import pytest
from fake_server import FakeServer
from PIL import Image
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import (
    InferenceServerException,
)

from descry.client import (
    TLS,
    DeadlineExceeded,
    DescryError,
    InvalidRequest,
    SearchClient,
    ServerFailed,
    ServerUnavailable,
)
from descry.client.cli import main
from descry.client.errors import translate


def test_no_server():
    with SearchClient("127.0.0.1:9", timeout=5) as client, pytest.raises(ServerUnavailable, match="descry serve"):
        client.stats()


def test_the_server_is_too_slow(fake):
    fake.before = lambda model: time.sleep(1)  # type: ignore[func-returns-value]
    with SearchClient(fake.url, timeout=0.2) as client, pytest.raises(DeadlineExceeded, match="0.2 s"):
        client.stats()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_mutual_tls(tmp_path):
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", chain, "-days", "2"]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *name], check=True, capture_output=True)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(FakeServer(), server)
    pair = [(key.read_bytes(), chain.read_bytes())]
    credentials = grpc.ssl_server_credentials(pair, chain.read_bytes(), require_client_auth=True)
    url = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        with SearchClient(url, tls=TLS(chain, key, chain)) as client:
            assert client.stats().rows == 0
        flags = ["--tls-ca", str(chain), "--tls-key", str(key), "--tls-cert", str(chain)]
        assert main(["stats", "--url", url, *flags]) == 0
        for certificates in (None, TLS(chain)):
            with SearchClient(url, tls=certificates) as client, pytest.raises(ServerUnavailable) as caught:
                client.stats()
            assert "TLS options" in str(caught.value)
    finally:
        server.stop(None).wait(5)


def test_bad_addresses_and_files(folder, client, tmp_path):
    with pytest.raises(InvalidRequest, match="without a scheme"):
        SearchClient("http://127.0.0.1:8000")
    with pytest.raises(InvalidRequest, match="timeout"):
        SearchClient(timeout=0)
    with pytest.raises(InvalidRequest, match="missing.pem"):
        SearchClient(tls=TLS(tmp_path / "missing.pem"))
    (tmp_path / "text.pem").write_text("no certificate\n")
    for half in (TLS(certificate_chain=tmp_path / "text.pem"), TLS(private_key=tmp_path / "text.pem")):
        with pytest.raises(InvalidRequest, match="belong together"):
            SearchClient(tls=half)
    with SearchClient(client.url, tls=TLS(tmp_path / "text.pem")) as secure:
        with pytest.raises(ServerUnavailable, match="check the TLS options"):
            secure.stats()
    with pytest.raises(InvalidRequest, match="cannot read the image"):
        client.describe(folder / "absent.jpg")
    with pytest.raises(InvalidRequest, match="cannot decode the given image: image file is truncated"):
        client.describe(Image.open(io.BytesIO((folder / "red.jpg").read_bytes()[:-100])))
    with pytest.raises(InvalidRequest, match="^cannot decode image$"):
        client.describe(b"not an image")


@pytest.mark.parametrize(
    ("status", "text", "kind", "message"),
    [
        ("INVALID_ARGUMENT", "in ensemble 'describe_image', cannot decode image: x", InvalidRequest, "cannot decode"),
        ("UNAVAILABLE", "failed to connect to all addresses", ServerUnavailable, "no Descry server answers at here"),
        ("UNAVAILABLE", "Socket closed", ServerUnavailable, "it stopped, or the TLS options differ"),
        ("UNAVAILABLE", "x: CERTIFICATE_VERIFY_FAILED", ServerUnavailable, "check the TLS options"),
        ("UNAVAILABLE", "Exceeds maximum queue size", ServerUnavailable, "not ready: Exceeds"),
        ("NOT_FOUND", "'match' has no available versions", ServerUnavailable, "shutting down"),
        ("NOT_FOUND", "unknown model: 'match' is not found", ServerFailed, "not a Descry server"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceeded, "within 3 s"),
        ("INTERNAL", "the disk is full", ServerFailed, "INTERNAL): the disk is full"),
        ("FAILED_PRECONDITION", "gallery of another model", ServerFailed, "gallery of another model"),
        ("UNAUTHENTICATED", "no", ServerFailed, "check the token"),
    ],
)
def test_every_status_has_words(status, text, kind, message):
    error = translate(InferenceServerException(text, status=f"StatusCode.{status}"), "here", 3)
    assert type(error) is kind and message in str(error)


def test_every_error_is_a_descry_error():
    assert all(issubclass(kind, DescryError) for kind in (InvalidRequest, ServerUnavailable, DeadlineExceeded))
