"""Requests of docs/wire.md as protobuf messages, made without a client."""

import json
import struct
from collections.abc import Mapping
from random import Random

import numpy as np
from hostile_images import good_images
from tiny_models import ATTRIBUTES, EMBEDDING, HEIGHT, WIDTH
from tritonclient.grpc.service_pb2 import ModelInferRequest

CAMERA = "hostile"


def message(model: str, tensors: Mapping[str, np.ndarray]) -> ModelInferRequest:
    """A request of well-formed tensors."""
    request = ModelInferRequest(model_name=model)
    for name, values in tensors.items():
        kind = {"O": "BYTES", "f": "FP32", "i": "INT32", "u": "UINT8"}[values.dtype.kind]
        add(request, name, kind, values.shape, packed(values.ravel()) if kind == "BYTES" else values.tobytes())
    return request


def add(request: ModelInferRequest, name: str, kind: str, shape: tuple[int, ...], content: bytes) -> None:
    tensor = request.inputs.add(name=name, datatype=kind)
    tensor.shape.extend(shape)
    request.raw_input_contents.append(content)


def packed(texts: np.ndarray) -> bytes:
    """Texts as they go over the wire, each after its length."""
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def text(*values: bytes | str) -> np.ndarray:
    return np.array([[value.encode() if isinstance(value, str) else value] for value in values], np.object_)


def floats(*shape: int, value: float = 0.5) -> np.ndarray:
    return np.full(shape, value, np.float32)


def sound(model: str, chance: Random) -> dict[str, np.ndarray]:
    """The inputs of a request of which nothing is wrong."""
    row = {"id": text(f"hostile/{chance.randrange(50)}"), "metadata": text(json.dumps({"camera": CAMERA}))}
    vectors = {"embedding": floats(1, EMBEDDING, value=0.25), "scores": floats(1, ATTRIBUTES)}
    described = {"attributes": floats(1, ATTRIBUTES), "known": floats(1, ATTRIBUTES), "par_weight": floats(1, 1)}
    limits = {"k": np.full((1, 1), 5, np.int32), "filter": text("{}")}
    optional = {"options": text("{}"), "threshold": floats(1, 1)}
    picture = {"image": text(good_images()["JPEG"])}
    return {
        "describe_image": picture,
        "decode_image": picture,
        "match": picture | described,
        "similar_search": picture | described | limits | {"options": text("{}")},
        "attribute_search": described | limits | optional,
        "gallery_search": {"query": floats(1, EMBEDDING, value=0.25)} | described | limits | optional,
        "index_image": picture | row | {"operation": text("put")},
        "gallery_write": row | vectors | {"operation": text(chance.choice(["put", "put", "update", "delete"]))},
        "gallery_info": {"request": text('{"about": "stats"}')},
        "gallery_admin": {"request": text('{"do": "rows", "count": 2}')},
        "image_encoder": {"INPUT__0": np.zeros((1, 3, HEIGHT, WIDTH), np.uint8)},
        "attribute_encoder": {"INPUT__0": floats(1, ATTRIBUTES), "INPUT__1": floats(1, ATTRIBUTES)},
        "change_query": {
            "INPUT__0": floats(1, EMBEDDING),
            "INPUT__1": floats(1, ATTRIBUTES),
            "INPUT__2": floats(1, ATTRIBUTES),
        },
    }[model]


MODELS = (
    *("describe_image", "decode_image", "match", "similar_search", "attribute_search", "gallery_search", "index_image"),
    *("gallery_write", "gallery_info", "gallery_admin", "image_encoder", "attribute_encoder", "change_query"),
)
TAKES_IMAGES = ("describe_image", "decode_image", "match", "similar_search", "index_image")
