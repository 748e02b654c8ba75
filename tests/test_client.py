"""The client against a server that speaks just enough of the wire: vectors, errors, timeouts, indexing."""

import io
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import (
    InferenceServerException,
    deserialize_bytes_tensor,
    np_to_triton_dtype,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

from descry.client import (
    TLS,
    DeadlineExceeded,
    DescryError,
    GalleryEmpty,
    InvalidRequest,
    Schema,
    SearchClient,
    ServerFailed,
    ServerUnavailable,
    draw_grid,
    index_folder,
    parse_statements,
    thumbnail,
)
from descry.client import indexing as indexing_module
from descry.client.cli import main
from descry.client.errors import translate
from descry.client.indexing import read_labels

SCHEMA = {
    "name": "tiny",
    "groups": [
        {"name": "gender", "kind": "binary", "part": "identity", "values": ["male", "female"]},
        {"name": "upper_color", "kind": "choice", "part": "upper", "values": ["red", "green", "blue"]},
        {"name": "carrying", "kind": "multi", "part": "carrying", "values": ["backpack", "handbag"]},
        {"name": "age", "kind": "choice", "part": "identity", "values": ["adult", "60+"]},
    ],
}
N = 8


class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """The wire of docs/wire.md over a dictionary; a photo's upper colour is its mean colour."""

    def __init__(self) -> None:
        self.rows: dict[str, dict] = {}
        self.requests: list[tuple[str, dict]] = []
        self.headers: dict[str, str] = {}
        self.before: Callable[[str], tuple[grpc.StatusCode, str] | None] = lambda model: None

    def ModelInfer(self, request, context):  # noqa: N802
        raw = iter(request.raw_input_contents)
        inputs = {}
        for entry in request.inputs:
            content, kind = next(raw), triton_to_np_dtype(entry.datatype)
            values = deserialize_bytes_tensor(content) if kind == np.object_ else np.frombuffer(content, kind)
            inputs[entry.name] = values.reshape(list(entry.shape))[0]
        self.requests.append((request.model_name, inputs))
        self.headers = dict(context.invocation_metadata())
        refusal = self.before(request.model_name)
        if refusal:
            context.abort(*refusal)
        try:
            outputs = getattr(self, request.model_name)(inputs)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"in ensemble '{request.model_name}', {error}")
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, values in outputs.items():
            array = np.asarray(values, np.object_ if isinstance(values[:1][0] if len(values) else b"", bytes) else None)
            array = array[None] if array.dtype == np.object_ else array.astype(np.float32)[None]
            response.outputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
            packed = (
                serialize_byte_tensor(array).item() if array.dtype == np.object_ and array.size else array.tobytes()
            )
            response.raw_output_contents.append(packed if array.size else b"")
        return response

    def gallery_info(self, inputs):
        request = json.loads(inputs["request"][0])
        answers = {
            "model": {
                "schema": SCHEMA,
                "model_digest": "abc",
                "method": "asmr",
                "par_weight": 1.0,
                "max_par": 2.0,
                "max_emb": 1.5,
                "embedding_size": 4,
                "image_size": [256, 128],
            },
            "stats": {
                "rows": len(self.rows),
                "cameras": {},
                "first_time": None,
                "last_time": None,
                "gallery": "fake",
                "model_digest": "abc",
            },
            "missing": {"missing": [id for id in request.get("ids", []) if id not in self.rows]},
        }
        return {"response": [json.dumps(answers[request["about"]]).encode()]}

    def describe_image(self, inputs):
        return {"scores": self.scores(inputs["image"][0]), "embedding": np.ones(4) / 2}

    def index_image(self, inputs):
        id = inputs["id"][0].decode()
        status = b"replaced" if id in self.rows else b"added"
        row = {"scores": self.scores(inputs["image"][0]), "metadata": inputs["metadata"][0]}
        self.rows[id] = row
        return {"status": [status]}

    def gallery_write(self, inputs):
        return {"status": [b"deleted" if self.rows.pop(inputs["id"][0].decode(), None) else b"absent"]}

    def match(self, inputs):
        scores = self.scores(inputs["image"][0])
        terms = inputs["known"] * (inputs["attributes"] - scores) ** 2
        par = float(np.sqrt(terms.sum())) / 2
        return {
            "distance": np.array([par + 0.5]),
            "par_distance": np.array([par]),
            "embedding_distance": np.array([0.5]),
            "terms": terms,
            "scores": scores,
        }

    def attribute_search(self, inputs):
        cameras = json.loads(inputs["filter"][0]).get("camera")
        ranking = []
        for id, row in self.rows.items():
            if cameras is None or json.loads(row["metadata"]).get("camera") in cameras:
                terms = inputs["known"] * (inputs["attributes"] - row["scores"]) ** 2
                ranking.append((float(np.sqrt(terms.sum())), id, row, terms))
        best = sorted(ranking, key=lambda entry: entry[:2])[: int(inputs["k"][0])]
        return {
            "ids": [id.encode() for _, id, _, _ in best],
            "metadata": [row["metadata"] for _, _, row, _ in best],
            "distances": np.array([distance for distance, *_ in best]),
            "par_distances": np.array([distance for distance, *_ in best]),
            "embedding_distances": np.zeros(len(best)),
            "terms": np.array([terms for *_, terms in best]).reshape(-1, N),
            "scores": np.array([row["scores"] for _, _, row, _ in best]).reshape(-1, N),
        }

    similar_search = attribute_search

    @staticmethod
    def scores(content: bytes) -> np.ndarray:
        try:
            color = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.float32).mean((0, 1)) / 255
        except OSError as error:
            raise ValueError("cannot decode image") from error
        return np.array([0.9, *color, 0.8, 0.1, 0.7, 0.2], np.float32)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    service = FakeServer()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    service.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    service.stop = lambda: server.stop(None).wait(5)
    server.start()
    yield service
    service.stop()


@pytest.fixture
def client(fake: FakeServer) -> Iterator[SearchClient]:
    with SearchClient(fake.url, timeout=5) as connection:
        yield connection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photos, red, green and blue, one in a subfolder."""
    root = tmp_path / "crops"
    (root / "deeper").mkdir(parents=True)
    colors = {"red": "#ff0000", "green": "#00ff00", "blue": "#0000ff"}
    for name, color in colors.items():
        Image.new("RGB", (64, 128), color).save(root / f"{name}.jpg")
        Image.new("RGB", (64, 128), color).save(root / "deeper" / f"{name}.PNG")
    (root / "notes.txt").write_text("not an image")
    return root


def test_importing_the_client_loads_nothing_of_the_trainer():
    modules = sorted(path.stem for path in Path(__file__).parents[1].glob("client/*.py") if path.stem != "__main__")
    script = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module("descry.client." + name if name != "__init__" else "descry.client")
heavy = {{"torch", "torchvision", "gradio", "timm", "tqdm", "descry.trainer", "descry.export", "descry.demo"}}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or 0)
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr


# Schema


def schema() -> Schema:
    return Schema.from_json(SCHEMA)


def test_encode_marks_a_stated_group_known_in_all_elements():
    attributes, known = schema().encode({"gender": "female", "upper_color": "blue", "carrying": "unknown", "age": None})
    assert attributes.tolist() == [1, 0, 0, 1, 0, 0, 0, 0]
    assert known.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert attributes.dtype == known.dtype == np.float32


@pytest.mark.parametrize(
    ("stated", "elements"),
    [("backpack+handbag", [1, 1]), (["handbag"], [0, 1]), ("none", [0, 0]), ("handbag+backpack", [1, 1])],
)
def test_encode_multi(stated, elements):
    attributes, known = schema().encode({"carrying": stated})
    assert attributes[4:6].tolist() == elements and known[4:6].tolist() == [1, 1]


def test_a_plus_in_a_value_is_part_of_the_value():
    assert schema().encode({"age": "60+"})[0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ({"gendr": "male"}, "did you mean 'gender'"),
        (
            {"upper_color": "grean"},
            "upper_color: 'grean' is not known (did you mean 'green'?); valid: red, green",
        ),
        ({"gender": "none"}, "valid: male, female"),
        ({"upper_color": ["red", "blue"]}, "takes one value"),
        ({"carrying": "none+handbag"}, "takes one value"),
    ],
)
def test_encode_refuses(statements, message):
    with pytest.raises(InvalidRequest) as caught:
        schema().encode(statements)
    assert message in str(caught.value)


def test_encode_agrees_with_the_trainer():
    """The two schemas are written twice on purpose (the client has no trainer); they must not drift apart."""
    trainer = pytest.importorskip("descry.trainer.schema")
    theirs = trainer.AttributeSchema.from_json(json.dumps(SCHEMA))
    statements = {"gender": "female", "carrying": ["handbag"], "age": "none"}
    row = theirs.encode(statements)
    attributes, known = schema().encode(statements)
    assert np.array_equal(known == 1, row != trainer.UNKNOWN)
    assert np.array_equal(attributes[known == 1], row[known == 1])
    assert schema().elements == theirs.elements


def test_parse_statements():
    assert parse_statements(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    for wrong in (["gender"], ["=x"], ["a="], ["a=b", "a=c"]):
        with pytest.raises(InvalidRequest):
            parse_statements(wrong)


def test_prediction_and_agreement():
    scores = np.array([0.2, 0.1, 0.1, 0.2, 0.9, 0.6, 0.3, 0.7], np.float32)
    predicted = {one.group: one for one in schema().predict(scores)}
    assert {name: one.value for name, one in predicted.items()} == {
        "gender": "male",
        "upper_color": "none",
        "carrying": "backpack+handbag",
        "age": "60+",
    }
    assert predicted["gender"].probability == pytest.approx(0.8)
    assert predicted["upper_color"].probability == pytest.approx(0.6)
    assert predicted["carrying"].probability == pytest.approx(0.54)
    terms = np.array([0.64, 0, 0, 0, 0.01, 0.36, 0, 0], np.float32)
    gender, carrying = schema().agreement({"gender": "female", "carrying": "backpack"}, scores, terms)
    assert (gender.stated, gender.predicted, gender.agrees) == ("female", "male", False)
    assert gender.probability == pytest.approx(0.2) and gender.term == pytest.approx(0.64)
    assert not carrying.agrees and carrying.probability == pytest.approx(0.9 * 0.4)
    assert carrying.term == pytest.approx(0.37)


def test_predicted_values_are_the_most_probable_ones():
    generator = np.random.default_rng(0)
    for _ in range(50):
        scores = generator.random(N).astype(np.float32)
        for group, where in ((group, schema().slices[group.name]) for group in schema().groups):
            best = group.predict(scores[where]).probability
            assert all(best >= group.probability((value,), scores[where]) - 1e-6 for value in group.choices)


# Calls


def test_search_ranks_explains_and_filters(fake, client, folder, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("image,camera,colour\nred.jpg,1,x\nblue.jpg,2,x\n")
    index_folder(client, folder, labels=labels, progress=io.StringIO())
    hits = client.search({"upper_color": "blue", "gender": "female"}, k=3)
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert {hits[0].id, hits[1].id} == {"blue.jpg", "deeper/blue.PNG"}
    assert [one.group for one in hits[0].agreement] == ["gender", "upper_color"]
    assert all(one.agrees for one in hits[0].agreement) and not hits[2].agreement[1].agrees
    assert hits[0].scores.shape == hits[0].terms.shape == (N,)
    assert [hit.id for hit in client.search({"upper_color": "blue"}, cameras=["1"])] == ["red.jpg"]
    assert client.search({"upper_color": "blue"}, cameras=["9"]) == []
    assert json.loads(fake.rows["red.jpg"]["metadata"]) == {"image": "red.jpg", "camera": "1"}


def test_the_weight_on_the_wire(fake, client):
    for given, sent in ((None, -1.0), (0, 0.0), (2.5, 2.5)):
        with pytest.raises(GalleryEmpty, match="descry index"):
            client.search({"gender": "male"}, par_weight=given)
        request = [inputs for model, inputs in fake.requests if model == "attribute_search"][-1]
        assert request["par_weight"].tolist() == [sent]
    with pytest.raises(InvalidRequest, match="from 0 on"):
        client.search({"gender": "male"}, par_weight=-1)


def test_an_empty_description_is_refused_with_the_attributes(client):
    for statements in ({}, {"gender": "unknown"}):
        with pytest.raises(InvalidRequest, match="(?s)state at least one attribute.*red | green | blue"):
            client.search(statements)


@pytest.mark.parametrize("form", ["path", "bytes", "pil"])
def test_images_of_every_form(client, folder, form):
    path = folder / "blue.jpg"
    image = {"path": path, "bytes": path.read_bytes(), "pil": Image.open(path)}[form]
    description = client.describe(image)
    assert {one.group: one.value for one in description.predictions}["upper_color"] == "blue"
    assert description.scores.shape == (N,) and description.embedding.shape == (4,)


def test_match_similar_delete_and_stats(client, folder):
    assert client.match(folder / "red.jpg", {"upper_color": "red"}).agreement[0].agrees
    assert client.index(folder / "red.jpg", "1", {"camera": "c"}) == "added"
    assert client.index(folder / "red.jpg", "1") == "replaced"
    assert [hit.id for hit in client.similar(folder / "red.jpg")] == ["1"]
    assert client.similar(folder / "red.jpg")[0].image == "1"
    assert client.stats().rows == 1
    assert client.delete(["1", "2", "1"]) == {"1": "deleted", "2": "absent"}
    with pytest.raises(GalleryEmpty):
        client.similar(folder / "red.jpg")


def test_token_and_headers_are_sent(fake):
    with SearchClient(fake.url, token="secret", headers={"tenant": "a"}) as client:
        client.stats()
    assert fake.headers["authorization"] == "Bearer secret" and fake.headers["tenant"] == "a"


# Failures


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
    with pytest.raises(InvalidRequest, match="cannot read the image"):
        client.describe(folder / "absent.jpg")
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


# Indexing


def test_index_a_folder_and_resume(fake, client, folder):
    progress = io.StringIO()
    report = index_folder(client, folder, progress=progress)
    assert (report.found, report.indexed, report.present, report.complete) == (6, 6, 0, True)
    assert set(fake.rows) == {path.relative_to(folder).as_posix() for path in folder.rglob("*.[jP]*")}
    assert "6/6 images" in progress.getvalue()
    sent = len(fake.requests)
    again = index_folder(client, folder, progress=io.StringIO())
    assert (again.indexed, again.present) == (0, 6)
    assert not [model for model, _ in fake.requests[sent:] if model == "index_image"]


def test_one_bad_image_never_costs_the_rest(client, folder):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 cut off")
    (folder / "empty.png").write_bytes(b"")
    (folder / ("x" * 250)).mkdir()
    long = folder / ("x" * 250) / ("y" * 250)
    long.mkdir()
    Image.new("RGB", (8, 8)).save(long / "deep_in_the_folders.jpg")
    report = index_folder(client, folder, progress=io.StringIO())
    assert report.indexed == 6 and report.stopped is None and not report.complete
    reasons = sorted(report.failed.values())
    assert reasons[:2] == ["cannot decode image", "cannot decode image"] and "512; shorten it" in reasons[2]


def test_a_server_that_dies_midway_stops_the_run_and_the_next_run_continues(fake, client, folder, monkeypatch):
    monkeypatch.setattr(indexing_module, "PAUSE", 0.05)
    dead = threading.Event()

    def die_after_two(model):
        if dead.is_set() or (model == "index_image" and len(fake.rows) >= 2):
            dead.set()
            return grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"
        return None

    fake.before = die_after_two
    report = index_folder(client, folder, in_flight=1, progress=io.StringIO())
    assert report.indexed == 2 == len(fake.rows) and not report.failed
    assert report.stopped is not None and "descry serve" in report.stopped
    fake.before = lambda model: None
    again = index_folder(client, folder, progress=io.StringIO())
    assert (again.present, again.indexed, again.complete) == (2, 4, True)


def test_a_server_that_is_full_for_a_moment_is_asked_again(fake, client, folder, monkeypatch):
    monkeypatch.setattr(indexing_module, "PAUSE", 0.01)
    seen: list[str] = []

    def full_once(model):
        seen.append(model)
        if seen.count("index_image") == 1 and model == "index_image":
            return grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size"
        return None

    fake.before = full_once
    assert index_folder(client, folder, in_flight=1, progress=io.StringIO()).indexed == 6


def test_a_server_that_fails_every_image_is_left(fake, client, folder, monkeypatch):
    monkeypatch.setattr(indexing_module, "FAILURES_IN_A_ROW", 3)
    full = (grpc.StatusCode.INTERNAL, "database or disk is full")
    fake.before = lambda model: full if model == "index_image" else None
    report = index_folder(client, folder, in_flight=1, progress=io.StringIO())
    assert 3 <= len(report.failed) <= 4 and "disk is full" in str(report.stopped)


def test_labels_are_checked(tmp_path, client, folder):
    labels = tmp_path / "labels.csv"
    labels.write_text("file,camera\na.jpg,1\n")
    with pytest.raises(InvalidRequest, match="no column 'image'; its columns: file, camera"):
        read_labels(labels)
    labels.write_text("image,camera\na.jpg,1\n./a.jpg,2\n")
    with pytest.raises(InvalidRequest, match="line 3: image 'a.jpg' is named twice"):
        read_labels(labels)
    labels.write_text("\ufeffimage,camera,time,hat\nred.jpg,1,,yes\nlost.jpg,2,2026-01-01T00:00:00,no\n")
    assert read_labels(labels)["red.jpg"] == {"camera": "1"}
    assert index_folder(client, folder, labels=labels, progress=io.StringIO()).unused_labels == ["lost.jpg"]


def test_folders_without_images_are_refused(tmp_path, client):
    with pytest.raises(InvalidRequest, match="is not a folder"):
        index_folder(client, tmp_path / "absent")
    with pytest.raises(InvalidRequest, match="holds no image"):
        index_folder(client, tmp_path)


# Pictures


def test_grid_shows_the_crops_whole(client, folder, tmp_path):
    index_folder(client, folder, progress=io.StringIO())
    hits = client.search({"upper_color": "blue", "gender": "male"}, k=6)
    (folder / hits[1].id).unlink()
    picture = tmp_path / "grid.png"
    draw_grid(hits, folder, picture, "upper_color=blue gender=male", columns=3)
    with Image.open(picture) as drawn:
        colors = {color for _, color in drawn.convert("RGB").getcolors(1 << 20)}
        assert drawn.width >= 480 and drawn.height > 512 and drawn.getpixel((0, 0)) == (255, 255, 255)
        assert any(blue > 240 and red < 20 for red, _, blue in colors)
    with pytest.raises(InvalidRequest, match="cannot write"):
        draw_grid(hits, folder, tmp_path / "no" / "grid.png", "")
    with pytest.raises(InvalidRequest, match="no hits"):
        draw_grid([], folder, picture, "")


def test_thumbnail_never_leaves_the_image_folder(folder, tmp_path):
    Image.new("RGB", (8, 8), "#ff0000").save(tmp_path / "secret.png")
    shown = thumbnail(folder, "../secret.png", (40, 80))
    assert shown.size == (40, 80) and (255, 0, 0) not in {color for _, color in shown.getcolors(1 << 16)}
    inside = thumbnail(folder, "red.jpg", (40, 80))
    assert inside.getpixel((20, 40))[0] > 200


def test_every_error_is_a_descry_error():
    assert all(issubclass(kind, DescryError) for kind in (InvalidRequest, ServerUnavailable, DeadlineExceeded))
