"""Requests that mean harm, made from a seed, and what a server may answer to them.

They are protobuf messages, made without a client, which would refuse many of them before they are sent.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import grpc
import numpy as np
from hostile_images import bomb, fuzzed_image
from hostile_texts import TEXTS, long_text, malformed_json, quoted
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse
from wire_messages import MODELS, TAKES_IMAGES, message, sound, text

LONGEST_ANSWER = 2000
# What the server may say. To names that there are not Triton answers, and quotes them whole: gRPC drops an answer above
# 16 KiB as RESOURCE_EXHAUSTED. To bytes that are no request gRPC answers.
ANSWERS = {"OK", "INVALID_ARGUMENT"}
ANSWERS_BY_KIND = {
    "names": ANSWERS | {"NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"},
    "messages": ANSWERS | {"NOT_FOUND", "UNIMPLEMENTED", "INTERNAL"},
}
LEAKS = ("Traceback", ".py", "/1/", "/tmp", "/home", "/usr", "in the server; its log")
NUMBERS = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -1.0, 1.5, 1e6, 1e7)
WHOLE_NUMBERS = (0, -1, 10_001, 2**31 - 1, -(2**31), 100_000)


@dataclass(frozen=True)
class Hostile:
    """One request: its kind, what is wrong with it, and the message as it goes over the wire."""

    kind: str
    what: str
    message: bytes


def hostile(seed: int, count: int) -> Iterator[Hostile]:
    """`count` requests, all kinds in turn; the same for the same seed."""
    chance, kinds = Random(seed), list(KINDS.items())
    for number in range(count):
        kind, make = kinds[number % len(kinds)]
        what, message = make(chance)
        message = message if isinstance(message, bytes) else message.SerializeToString()
        yield Hostile(kind, what, message)


def send(channel: grpc.Channel, message: bytes, seconds: float = 60) -> tuple[str, str, ModelInferResponse | None]:
    """Status, message and response."""
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=None,
        response_deserializer=ModelInferResponse.FromString,
    )
    try:
        return "OK", "", call(message, timeout=seconds)
    except grpc.RpcError as error:
        return error.code().name, error.details() or "", None


def complaint(case: Hostile, status: str, text: str, response: ModelInferResponse | None) -> str | None:
    """What is wrong with an answer; None where nothing is."""
    if status not in ANSWERS_BY_KIND.get(case.kind, ANSWERS):
        return f"answered {status}: {text[:300]}"
    leaked = [words for words in LEAKS if words in text]
    if leaked or len(text) > LONGEST_ANSWER:
        return f"says {leaked} in {len(text)} characters: {text[:300]}"
    if status != "OK" and not text:
        return "refused without a word"
    return None if response is None else _broken(response)


def _broken(response: ModelInferResponse) -> str | None:
    """A ranking whose hits have no distance, or stand in no order."""
    raw = {each.name: content for each, content in zip(response.outputs, response.raw_output_contents, strict=True)}
    if "distances" not in raw:
        return None
    distances = np.frombuffer(raw["distances"], np.float32)
    shape = next(tuple(each.shape) for each in response.outputs if each.name == "distances")
    for row in distances.reshape(shape):
        hits = row[~np.isnan(row)]
        if len(hits) and not (np.isfinite(hits).all() and (np.diff(hits) >= 0).all()):
            return f"a ranking of {hits.tolist()[:5]}"
    return None


def wrong_image(chance: Random) -> tuple[str, ModelInferRequest]:
    """To every model that takes one."""
    return _with_image(chance, *fuzzed_image(chance))


def large_image(chance: Random) -> tuple[str, ModelInferRequest]:
    return _with_image(chance, *bomb(chance))


def _with_image(chance: Random, what: str, content: bytes) -> tuple[str, ModelInferRequest]:
    model = chance.choice(TAKES_IMAGES)
    return f"{model}: {what}", message(model, sound(model, chance) | {"image": text(content)})


def wrong_number(chance: Random) -> tuple[str, ModelInferRequest]:
    """A float that is no number, or none that is meant, in one place of a vector or in all."""
    model = chance.choice([each for each in MODELS if each not in ("describe_image", "decode_image", "image_encoder")])
    inputs = {name: values.copy() for name, values in sound(model, chance).items()}
    names = [name for name, values in inputs.items() if values.dtype == np.float32]
    if not names:
        return wrong_whole_number(chance)
    name, value = chance.choice(names), chance.choice(NUMBERS)
    places = slice(None) if chance.random() < 0.5 else chance.randrange(inputs[name].shape[1])
    inputs[name][0, places] = value
    return f"{model}: {name} = {value}", message(model, inputs)


def wrong_whole_number(chance: Random) -> tuple[str, ModelInferRequest]:
    model = chance.choice(("similar_search", "attribute_search", "gallery_search"))
    k = chance.choice(WHOLE_NUMBERS)
    return f"{model}: k = {k}", message(model, sound(model, chance) | {"k": np.full((1, 1), k, np.int32)})


JSON_INPUTS = {
    "filter": ("attribute_search", "similar_search", "gallery_search"),
    "options": ("attribute_search", "similar_search", "gallery_search"),
    "metadata": ("index_image", "gallery_write"),
    "request": ("gallery_info", "gallery_admin"),
}
WRITES = ("index_image", "gallery_write")
TEXT_INPUTS = {**JSON_INPUTS, "id": WRITES, "operation": WRITES, "image": TAKES_IMAGES}


def wrong_json(chance: Random) -> tuple[str, ModelInferRequest]:
    """JSON of known keys with wrong values, deep nesting, or no JSON."""
    name, models = chance.choice(list(JSON_INPUTS.items()))
    return _with_text(chance, chance.choice(models), name, malformed_json(name, chance))


def wrong_text(chance: Random) -> tuple[str, ModelInferRequest]:
    """A text that is no UTF-8, SQL, or holds what texts should not."""
    name, models = chance.choice(list(TEXT_INPUTS.items()))
    content = chance.choice(TEXTS)
    if name in ("metadata", "filter") and chance.random() < 0.7:
        content = quoted(name, content)
    return _with_text(chance, chance.choice(models), name, content)


def oversized(chance: Random) -> tuple[str, ModelInferRequest]:
    """A text of up to 2 MB, as it is and inside JSON."""
    name = chance.choice((*JSON_INPUTS, "id", "operation"))
    return _with_text(chance, chance.choice(TEXT_INPUTS[name]), name, long_text(name, chance))


def _with_text(chance: Random, model: str, name: str, content: bytes) -> tuple[str, ModelInferRequest]:
    what = f"{model}: {name} = {content[:60]!r} of {len(content)} bytes"
    return what, message(model, sound(model, chance) | {name: text(content)})


def wrong_shape(chance: Random) -> tuple[str, ModelInferRequest]:
    """A tensor whose shape, kind or content does not fit."""
    model = chance.choice(MODELS)
    request = message(model, sound(model, chance))
    at = chance.randrange(len(request.inputs))
    tensor, content = request.inputs[at], request.raw_input_contents[at]
    way = chance.randrange(9)
    if way == 0:
        del tensor.shape[:]
        tensor.shape.extend(
            chance.choice(([1], [0, 1], [1, 0], [1, 1, 1], [-1, 1], [1, -1], [2**40, 2**40], [1, 3], [], [5000, 1]))
        )
    elif way == 1:
        tensor.datatype = chance.choice(("FP32", "INT32", "BYTES", "FP64", "UINT8", "BOOL", "FP16", "", "X" * 300))
    elif way == 2:
        request.raw_input_contents[at] = content[: chance.randrange(len(content) + 1)]
    elif way == 3:
        request.raw_input_contents[at] = content + b"\xff" * chance.randrange(1, 40)
    elif way == 4 and tensor.datatype == "BYTES":
        # A length that points beyond the text.
        request.raw_input_contents[at] = (
            struct.pack("<I", chance.choice((2**32 - 1, 2**31, len(content), 0))) + content[4:]
        )
    elif way == 5:
        # An empty vector, or one too long, of the kind that is expected.
        size = chance.choice((0, 1, 8, 4096))
        del tensor.shape[:]
        tensor.shape.extend([1, size])
        item = b"\0\0\0\0" if tensor.datatype in ("BYTES", "FP32", "INT32") else b"\0"
        request.raw_input_contents[at] = item * size
    elif way == 6:
        del request.raw_input_contents[at:]
    elif way == 7:
        del request.inputs[at], request.raw_input_contents[at]
    else:
        rows = chance.choice((2, 1024, 1025))
        for index, each in enumerate(request.inputs):
            each.shape[0] = rows
            request.raw_input_contents[index] *= rows
        if model in TAKES_IMAGES:
            return wrong_number(chance)
    return f"{model}: way {way} at {tensor.name}", request


def wrong_name(chance: Random) -> tuple[str, ModelInferRequest]:
    """A model, version, input or output that there is not; a request id or parameter that is too much."""
    model = chance.choice(MODELS)
    request, way = message(model, sound(model, chance)), chance.randrange(8)
    odd = chance.choice(("", "../gallery_search", "x" * 100_000, "a\0b", "'; DROP TABLE crop; --", "é\n"))
    if way == 0:
        request.model_name = odd
    elif way == 1:
        request.model_version = chance.choice(("2", "-1", "x", odd, "99999999999999999999"))
    elif way == 2:
        request.inputs[0].name = odd
    elif way == 3:
        request.outputs.add(name=odd)
    elif way == 4:
        request.id = odd
    elif way == 5:
        request.parameters[odd].double_param = chance.choice((float("nan"), float("inf"), 1e308))
    elif way == 6:
        request.parameters[
            chance.choice(("descry-key", "Descry-User", "sequence_id", "priority", odd))
        ].string_param = odd
    else:
        request.parameters[chance.choice(("timeout", "sequence_start", "binary_data_size", odd))].int64_param = -(2**63)
    return f"{model}: way {way}, {odd[:20]!r}", request


def wrong_message(chance: Random) -> tuple[str, bytes]:
    """Bytes that are no request, or half of one."""
    whole = message("gallery_search", sound("gallery_search", chance)).SerializeToString()
    content = bytearray(whole)
    for _ in range(chance.choice((1, 3, 30))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return "changed bytes", bytes(content[: chance.randrange(1, len(content))] if chance.random() < 0.3 else content)


KINDS: dict[str, Callable[[Random], tuple[str, ModelInferRequest | bytes]]] = {
    "images": wrong_image,
    "bombs": large_image,
    "numbers": wrong_number,
    "k": wrong_whole_number,
    "json": wrong_json,
    "texts": wrong_text,
    "oversized": oversized,
    "shapes": wrong_shape,
    "names": wrong_name,
    "messages": wrong_message,
}
