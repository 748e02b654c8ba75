"""The real Triton server of the wheel with tiny models: every ensemble by value, every refusal by status and text."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import children, wait_until_gone
from tiny_models import ATTRIBUTES, DIGEST, EMBEDDING, FEATURES, FUSION, HEIGHT, SCHEMA, WIDTH, tiny_repository
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from descry.client import triton_wheel
from descry.client.serve import ServerError, TritonServer

pytestmark = pytest.mark.server
SEARCH_OUTPUTS = (
    *("ids", "metadata", "distances", "par_distances", "embedding_distances", "terms", "scores"),
    *("frames", "probabilities", "verdict"),
)


@pytest.fixture(scope="module")
def client(server: TritonServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def modules(repository: Path) -> dict[str, torch.jit.ScriptModule]:
    """The served files, run in this process."""
    names = ("image_encoder", "par_head", "attribute_encoder", "change_query", "fuse_distances")
    return {name: torch.jit.load(repository / name / "1" / "model.pt") for name in names}


def ask(client: triton.InferenceServerClient, model: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs of `model`."""
    tensors = []
    for name, values in inputs.items():
        tensors.append(triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype)))
        tensors[-1].set_data_from_numpy(values)
    result = client.infer(model, tensors, client_timeout=60)
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def texts(*values: str | bytes) -> np.ndarray:
    return np.array([[value.encode() if isinstance(value, str) else value] for value in values], np.object_)


def photo(seed: int, kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (40, 90), **options) -> bytes:
    """An encoded random image."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (9, 4, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize(size).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def pixels(encoded: bytes) -> np.ndarray:
    """What training does with a file: uint8 [3, H, W]."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)


def described(modules, images: list[bytes]) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and scores of encoded images, computed in this process."""
    with torch.inference_mode():
        embedding, features = modules["image_encoder"](torch.from_numpy(np.stack([pixels(image) for image in images])))
        return embedding, modules["par_head"](features)


def description(seed: int, rows: int = 1, weight: float = 0.5) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    known = (generator.random((rows, ATTRIBUTES)) < 0.7).astype(np.float32)
    attributes = (generator.random((rows, ATTRIBUTES)) < 0.5).astype(np.float32)
    return {"attributes": attributes, "known": known, "par_weight": np.full((rows, 1), weight, np.float32)}


def ranking(k: int, cameras: list[str] | None = None, rows: int = 1) -> dict[str, np.ndarray]:
    chosen = json.dumps({} if cameras is None else {"camera": cameras})
    return {"k": np.full((rows, 1), k, np.int32), "filter": texts(*[chosen] * rows)}


def test_every_model_is_ready(server, client):
    assert len(server.models) == 15
    assert all(client.is_model_ready(model) for model in server.models)


def test_info_states_the_model(client):
    response = json.loads(ask(client, "gallery_info", request=texts('{"about": "model"}'))["response"].item())
    assert response == {"schema": SCHEMA, **FUSION}


@pytest.mark.parametrize(
    "image",
    [
        photo(1),
        photo(2, "PNG", "RGBA"),
        photo(3, "JPEG", "L"),
        photo(4, "JPEG", "CMYK"),
        photo(5, "WEBP"),
        photo(6, "PNG", "P"),
        photo(7, "PNG", size=(1, 1)),
        photo(8, size=(WIDTH, HEIGHT)),
    ],
    ids=["jpeg", "alpha", "grey", "cmyk", "webp", "palette", "one pixel", "same size"],
)
def test_decoding_gives_the_pixels_of_training(client, image):
    np.testing.assert_array_equal(ask(client, "decode_image", image=texts(image))["pixels"][0], pixels(image))


def test_decoding_turns_a_photo_upright(client):
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned
    upright = Image.open(io.BytesIO(photo(9, "PNG")))
    stream = io.BytesIO()
    upright.rotate(90, expand=True).save(stream, "PNG", exif=exif)
    decoded = ask(client, "decode_image", image=texts(stream.getvalue()))["pixels"][0]
    np.testing.assert_array_equal(decoded, pixels(photo(9, "PNG")))


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_describe_equals_the_modules(client, modules, rows):
    images = [photo(seed) for seed in range(rows)]
    answer = ask(client, "describe_image", image=texts(*images))
    embedding, scores = described(modules, images)
    np.testing.assert_allclose(answer["embedding"], embedding, atol=1e-5)
    np.testing.assert_allclose(answer["scores"], scores, atol=1e-5)


@pytest.mark.parametrize("weight", [-1.0, 0.0, 2.0])
def test_match_equals_the_modules(client, modules, weight):
    images, query = [photo(seed) for seed in range(4)], description(1, 4, weight)
    answer = ask(client, "match", image=texts(*images), **query)
    embedding, scores = described(modules, images)
    tensors = [torch.from_numpy(query[name]) for name in ("attributes", "known", "par_weight")]
    with torch.inference_mode():
        stated = modules["attribute_encoder"](*tensors[:2])
        expected = modules["fuse_distances"](stated, *tensors, embedding, scores)
    for name, values in zip(("distance", "par_distance", "embedding_distance", "terms"), expected, strict=True):
        np.testing.assert_allclose(answer[name], values, atol=1e-5)
    np.testing.assert_allclose(answer["scores"], scores, atol=1e-5)


@pytest.fixture(scope="module")
def indexed(client) -> list[bytes]:
    """Twelve photos in the gallery as `people/0` to `people/11`, cameras `people-0` and `people-1`."""
    images = [photo(100 + index) for index in range(12)]
    for index, image in enumerate(images):
        metadata = json.dumps({"image": f"{index}.jpg", "camera": f"people-{index % 2}"})
        row = {"id": texts(f"people/{index}"), "metadata": texts(metadata), "operation": texts("put")}
        assert ask(client, "index_image", image=texts(image), **row)["status"].item() == b"added"
    return images


@pytest.mark.parametrize("model", ["attribute_search", "similar_search"])
@pytest.mark.parametrize("weight", [-1.0, 0.0, 2.0])
def test_search_equals_the_modules(client, modules, indexed, model, weight):
    query, cameras = description(2, weight=weight), ["people-0", "people-1"]
    tensors = [torch.from_numpy(query[name]) for name in ("attributes", "known", "par_weight")]
    embedding, scores = described(modules, indexed)
    with torch.inference_mode():
        if model == "attribute_search":
            sought = modules["attribute_encoder"](*tensors[:2])
        else:
            sought = modules["change_query"](embedding[3:4], *tensors[:2])
        columns = [values.expand(12, -1) for values in (sought, *tensors)]
        distance, par, apart, terms = modules["fuse_distances"](*columns, embedding, scores)
    order = np.argsort(distance[:, 0].numpy())[:5]
    given = {"image": texts(indexed[3])} if model == "similar_search" else {}
    answer = ask(client, model, **given, **query, **ranking(5, cameras))
    assert [id.decode() for id in answer["ids"][0]] == [f"people/{index}" for index in order]
    assert [json.loads(text)["image"] for text in answer["metadata"][0]] == [f"{index}.jpg" for index in order]
    expected = {"par_distances": par, "embedding_distances": apart, "distances": distance}
    for name, values in expected.items():
        np.testing.assert_allclose(answer[name][0], values[order, 0], atol=2e-5)
    np.testing.assert_allclose(answer["terms"][0], terms[order], atol=1e-5)
    np.testing.assert_allclose(answer["scores"][0], scores[order], atol=1e-5)


def test_what_is_stated_changes_the_query_of_a_photo_and_nothing_leaves_it(client, modules, indexed):
    """Three rows of one request: the photo as it is, a gender, and a colour, which the tiny model does not use."""
    query = description(2, rows=3)
    query["known"][:] = 0
    query["known"][1, 0] = query["known"][2, 2:5] = 1
    answer = ask(
        client,
        "similar_search",
        image=texts(*[indexed[3]] * 3),
        **query,
        **ranking(12, ["people-0", "people-1"], rows=3),
    )
    embedding, _ = described(modules, indexed)
    photo, tensors = embedding[3:4].expand(3, -1), [torch.from_numpy(query[name]) for name in ("attributes", "known")]
    with torch.inference_mode():
        sought = modules["change_query"](photo, *tensors)
    assert (sought[1] - photo[1]).abs().max() > 0.1
    for row, cosines in enumerate([photo[0] @ embedding.T, sought[1] @ embedding.T, photo[2] @ embedding.T]):
        apart = (1 - cosines) / FUSION["max_emb"]
        found = [int(id.decode().removeprefix("people/")) for id in answer["ids"][row]]
        np.testing.assert_allclose(answer["embedding_distances"][row], apart[found], atol=2e-5)
    assert answer["ids"][0, 0] == b"people/3" and answer["embedding_distances"][0, 0] == pytest.approx(0, abs=2e-5)
    assert not answer["par_distances"][0].any() and answer["par_distances"][1:].all()


def test_a_batch_is_padded_to_its_longest_row(client, indexed):
    query, kept = description(3, 3), texts("{}", '{"camera": ["people-0"]}', '{"camera": ["nowhere"]}')
    query = {name: np.repeat(values[:1], 3, axis=0) for name, values in query.items()}
    answer = ask(client, "attribute_search", **query, k=np.full((3, 1), 8, np.int32), filter=kept)
    assert answer["ids"].shape == (3, 8)
    assert [sum(map(bool, row)) for row in answer["ids"]] == [8, 6, 0]
    assert np.isnan(answer["distances"][1]).tolist() == [False] * 6 + [True] * 2
    assert np.isnan(answer["terms"][2]).all()


def test_a_search_without_hits_is_no_error(client):
    answer = ask(client, "attribute_search", **description(4), **ranking(3, ["nowhere"]))
    assert set(answer) == set(SEARCH_OUTPUTS)
    assert answer["ids"].tolist() == [[b""]]


def test_rows_are_replaced_deleted_and_counted(client):
    vectors = {"embedding": np.eye(1, EMBEDDING, dtype=np.float32), "scores": np.full((1, ATTRIBUTES), 0.5, np.float32)}
    row = {"id": texts("ü/1"), "metadata": texts('{"camera": "written"}')}
    put, delete = row | {"operation": texts("put")}, row | {"operation": texts("delete")}
    statuses = [
        ask(client, "gallery_write", **each)["status"].item()
        for each in (delete, put | vectors, put | vectors, delete, put | vectors)
    ]
    assert statuses == [b"absent", b"added", b"replaced", b"deleted", b"added"]
    stats = json.loads(ask(client, "gallery_info", request=texts('{"about": "stats"}'))["response"].item())
    assert stats["cameras"]["written"] == 1 and stats["model_digest"] == DIGEST and stats["gallery"] == "gallery.sqlite"
    missing = ask(client, "gallery_info", request=texts('{"about": "missing", "ids": ["no", "ü/1"]}'))[
        "response"
    ].item()
    assert json.loads(missing) == {"missing": ["no"]}
    assert ask(client, "attribute_search", **description(5), **ranking(9, ["written"]))["ids"].tolist() == [
        ["ü/1".encode()]
    ]


def outcome(client: triton.InferenceServerClient, model: str, inputs: dict[str, np.ndarray]) -> dict | str:
    """The answer, or the refusal as `STATUS message`."""
    try:
        return ask(client, model, **inputs)
    except InferenceServerException as error:
        return f"{error.status().removeprefix('StatusCode.')} {error.message()}"


def test_a_bad_image_fails_alone(client, modules):
    images = [photo(seed) for seed in range(24)]
    images[7], images[15] = images[7][:300], b""
    with ThreadPoolExecutor(len(images)) as pool:
        answers = list(pool.map(lambda image: outcome(client, "describe_image", {"image": texts(image)}), images))
    good = [index for index in range(24) if index not in (7, 15)]
    embedding, _ = described(modules, [images[index] for index in good])
    np.testing.assert_allclose(np.concatenate([answers[index]["embedding"] for index in good]), embedding, atol=1e-5)
    assert "INVALID_ARGUMENT" in answers[7] and "cannot decode image: " in answers[7]
    assert "INVALID_ARGUMENT" in answers[15] and "cannot decode image: not one of JPEG, PNG, WEBP" in answers[15]


def test_a_bad_row_fails_alone(client):
    def write(index: int) -> dict | str:
        embedding = np.full((1, EMBEDDING), np.nan if index == 5 else 0.1, np.float32)
        scores = np.full((1, ATTRIBUTES), 0.5, np.float32)
        row = {"id": texts(f"alone/{index}"), "metadata": texts("{}"), "operation": texts("put")}
        return outcome(client, "gallery_write", row | {"embedding": embedding, "scores": scores})

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(write, range(16)))
    assert answers.pop(5) == "INVALID_ARGUMENT embedding holds NaN or infinity"
    assert all(answer["status"].item() == b"added" for answer in answers)


def large_png(width: int, height: int) -> bytes:
    """The head of a PNG that claims a size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + struct.pack(">I", 1000) + b"IDAT"


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        ("describe_image", {"image": texts(large_png(20_000, 20_000))}, "above 40 megapixels"),
        ("describe_image", {"image": texts(large_png(7_000, 6_000))}, "7000 x 6000 pixels, above 40 megapixels"),
        ("describe_image", {"image": texts(b"GIF89a" + bytes(40))}, "not one of JPEG, PNG, WEBP"),
        ("image_encoder", {"INPUT__0": np.zeros((1, 3, 8, 8), np.uint8)}, "shape [3, 32, 16] a row, got [3, 8, 8]"),
        ("par_head", {"INPUT__0": np.zeros((1, FEATURES + 1), np.float32)}, "shape [24] a row, got [25]"),
        ("match", description(6) | {"image": texts(photo(1)), "known": np.ones((1, 3), np.float32)}, "got [3]"),
        (
            "match",
            description(6) | {"image": texts(photo(1)), "par_weight": np.full((1, 1), np.nan, np.float32)},
            "NaN",
        ),
        (
            "attribute_search",
            description(6) | ranking(1) | {"attributes": np.full((1, ATTRIBUTES), np.nan, np.float32)},
            "NaN or infinity",
        ),
        ("attribute_search", description(6) | ranking(1) | {"known": np.full((1, 7), 1.5, np.float32)}, "0..1"),
        (
            "similar_search",
            description(6) | ranking(1) | {"image": texts(photo(1)), "known": np.ones((1, 3), np.float32)},
            "got [3]",
        ),
        ("attribute_search", description(6) | ranking(0), "k must be 1 to 10000, got 0"),
        ("attribute_search", description(6, 11) | ranking(10_000, rows=11), "exceed 100000 hits a request"),
        (
            "attribute_search",
            description(6) | ranking(1) | {"filter": texts('{"city": []}')},
            "'city' is not known; valid: camera",
        ),
        ("attribute_search", description(6) | ranking(1) | {"filter": texts('{"camera": "1"}')}, "list of texts"),
        ("attribute_search", description(6) | ranking(1) | {"filter": texts(b"\xff")}, "filter is not UTF-8"),
        (
            "attribute_search",
            description(6, 2) | ranking(1, rows=2) | {"k": np.array([[1], [2]], np.int32)},
            "k must be equal over a batch, got [1, 2]",
        ),
        (
            "gallery_write",
            {"id": texts("a"), "metadata": texts("{}"), "operation": texts("drop")},
            "'drop' is not known; valid: put, update, delete",
        ),
        (
            "gallery_write",
            {"id": texts("a"), "metadata": texts("{}"), "operation": texts("put")},
            "'embedding' is missing",
        ),
        (
            "index_image",
            {"image": texts(photo(1)), "id": texts(""), "metadata": texts("{}"), "operation": texts("put")},
            "id must have 1 to 512 bytes",
        ),
        ("gallery_info", {"request": texts('{"about": "weather"}')}, "valid: model, stats, missing"),
        ("gallery_info", {"request": texts('{"about": "missing", "ids": [1]}')}, "id must be a text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_request_is_refused_in_words(client, model, inputs, message):
    refusal = outcome(client, model, inputs)
    assert isinstance(refusal, str), "the request was accepted"
    assert refusal.startswith("INVALID_ARGUMENT ") and message in refusal
    assert "Traceback" not in refusal and ".py" not in refusal and "/tmp" not in refusal


def test_no_refused_request_stays_in_flight(repository, tmp_path):
    """Triton 24.10 never ends a request whose step fails while another step runs beside it."""
    log = tmp_path / "triton.log"
    with TritonServer(repository, tmp_path / "gallery.sqlite", "127.0.0.1", 0, 0, 0, log) as server:
        with triton.InferenceServerClient(server.url) as client:
            for change in ({"image": texts(b"x")}, {"known": np.ones((1, 3), np.float32)}):
                refusal = outcome(client, "match", description(6) | {"image": texts(photo(1))} | change)
                assert isinstance(refusal, str) and refusal.startswith("INVALID_ARGUMENT")
    assert "Found 0 model versions that have in-flight inferences" in log.read_text()


def test_a_taken_port_is_named(server, repository, tmp_path):
    with pytest.raises(ServerError, match=f"cannot listen on 127.0.0.1:{server.grpc_port} .*choose another port"):
        TritonServer(repository, tmp_path / "gallery.sqlite", grpc_port=server.grpc_port)


def test_a_missing_export_is_named(repository, tmp_path):
    incomplete = tiny_repository(tmp_path / "models")
    (incomplete / "par_head" / "1" / "model.pt").unlink()
    with pytest.raises(ServerError, match=r"par_head/1/model.pt is missing: run `python -m descry.export CHECKPOINT"):
        TritonServer(incomplete, tmp_path / "gallery.sqlite", "127.0.0.1", 0, 0, 0).start()
    with pytest.raises(ServerError, match="is not a model repository"):
        TritonServer(tmp_path, tmp_path / "gallery.sqlite", "127.0.0.1", 0, 0, 0).start()


def test_an_unsuited_environment_is_named(monkeypatch):
    monkeypatch.setattr(triton_wheel.importlib.metadata, "version", lambda name: "2.1.0")
    with pytest.raises(ServerError, match=r"numpy below 2, found 2.1.0: pip install 'descry-search\[server\]'"):
        triton_wheel.TritonWheel()
    monkeypatch.setattr(triton_wheel.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServerError, match=r"not installed: pip install 'descry-search\[server\]'"):
        triton_wheel.TritonWheel()


SERVE = """
import sys
from pathlib import Path
from descry.client import serve
from descry.client.serve_config import ServeConfig, ServerSection
serve.CHECK_SECONDS = 0.5
sys.exit(serve.serve(ServeConfig(ServerSection(Path(sys.argv[1]), Path(sys.argv[2]), grpc_port=0, metrics_port=0))))
"""


def start_serving(repository: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SERVE, str(repository), str(folder / "gallery.sqlite")]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def lines_until(process: subprocess.Popen[str], wanted: str) -> list[str]:
    """What the process says, up to the line that holds `wanted`."""
    lines: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if wanted in line:
            return lines
    raise AssertionError(f"{wanted!r} was never said: {lines}")


def test_serve_replaces_a_dead_model_and_stops_on_sigterm(repository, tmp_path):
    serve = start_serving(repository, tmp_path)
    try:
        first = lines_until(serve, "serving gRPC")[-1]
        descendants = children(serve.pid)
        (stub,) = [id for id, command in descendants.items() if "gallery_search/1/model.py" in command]
        os.kill(stub, signal.SIGKILL)
        assert lines_until(serve, "serving gRPC")[-1] == first
        descendants |= children(serve.pid)
        serve.terminate()
        assert serve.wait(60) == 0
    finally:
        serve.kill()
        serve.communicate()
    assert wait_until_gone(list(descendants), 20) == []
    assert list(Path("/dev/shm").glob(f"descry_{serve.pid}_*")) == []


def test_no_server_outlives_its_parent(repository, tmp_path):
    serve = start_serving(repository, tmp_path)
    try:
        deadline = time.monotonic() + 30
        while not any("gallery_search/1/model.py" in command for command in children(serve.pid).values()):
            assert time.monotonic() < deadline and serve.poll() is None
            time.sleep(0.05)
        descendants = list(children(serve.pid))
    finally:
        serve.kill()
        serve.communicate()
    assert wait_until_gone(descendants, 40) == []
    assert list(Path("/dev/shm").glob(f"descry_{serve.pid}_*")) == []
