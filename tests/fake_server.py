"""A server that speaks just enough of docs/wire.md to test the client without Triton."""

import io
import json
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import numpy as np
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import (
    deserialize_bytes_tensor,
    np_to_triton_dtype,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

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
        self.url = ""
        self.rows: dict[str, dict] = {}
        self.requests: list[tuple[str, dict]] = []
        self.headers: dict[str, str] = {}
        self.calibration: dict | None = None
        self.before: Callable[[str], tuple[grpc.StatusCode, str] | None] = lambda model: None

    def ModelInfer(self, request, context):  # noqa: N802
        raw = iter(request.raw_input_contents)
        inputs = {}
        for entry in request.inputs:
            content, kind = next(raw), triton_to_np_dtype(entry.datatype)
            values = deserialize_bytes_tensor(content) if kind == np.object_ else np.frombuffer(content, kind)
            inputs[entry.name] = values.reshape(list(entry.shape))
        rows = [
            {name: values[row] for name, values in inputs.items()} for row in range(len(next(iter(inputs.values()))))
        ]
        self.requests += [(request.model_name, row) for row in rows]
        self.headers = dict(context.invocation_metadata())
        refusal = self.before(request.model_name)
        if refusal:
            context.abort(*refusal)
        try:
            answers = [getattr(self, request.model_name)(row) for row in rows]
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"in ensemble '{request.model_name}', {error}")
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, values in answers[0].items():
            is_text = isinstance(values[0] if len(values) else b"", bytes)
            array = np.stack([np.asarray(row[name], np.object_ if is_text else np.float32) for row in answers])
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
                "par_distance": "euclidean",
                "embedding_size": 4,
                "image_size": [256, 128],
                "calibration": self.calibration,
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
            "frames": [b'[{"id": "f", "distance": 0.5}]' if "options" in inputs else b"[]" for _ in best],
            "probabilities": np.array([0.9 if self.calibration else np.nan for _ in best]),
            "verdict": [self.verdict(inputs)],
        }

    def verdict(self, inputs):
        """Every hit has probability 0.9."""
        if not self.calibration:
            return b"uncalibrated"
        threshold = inputs.get("threshold", [self.calibration["match"]["threshold"]])[0]
        return b"match" if threshold <= 0.9 else b"no match"

    similar_search = gallery_search = attribute_search

    def attribute_encoder(self, inputs):
        return {"OUTPUT__0": (inputs["INPUT__0"] * inputs["INPUT__1"])[:4]}

    def change_query(self, inputs):
        return {"OUTPUT__0": inputs["INPUT__0"] + (inputs["INPUT__1"] * inputs["INPUT__2"])[:4]}

    def fuse_distances(self, inputs):
        query, attributes, known, weight, embedding, scores = (inputs[f"INPUT__{index}"] for index in range(6))
        terms = known * (attributes - scores) ** 2
        par, apart = np.sqrt(terms.sum(keepdims=True)), 1 - (query * embedding).sum(keepdims=True)
        return {"OUTPUT__0": weight * par + apart, "OUTPUT__1": par, "OUTPUT__2": apart, "OUTPUT__3": terms}

    @staticmethod
    def scores(content: bytes) -> np.ndarray:
        try:
            color = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.float32).mean((0, 1)) / 255
        except OSError as error:
            raise ValueError("cannot decode image") from error
        return np.array([0.9, *color, 0.8, 0.1, 0.7, 0.2], np.float32)


@contextmanager
def serving(service: FakeServer) -> Iterator[FakeServer]:
    """The service on a free port, named by its `url`."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    service.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield service
    finally:
        server.stop(None).wait(5)
