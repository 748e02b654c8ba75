"""Requests that mean harm, made from a seed, and what a server may answer to them.

They are protobuf messages, made without a client, which would refuse many of them before they are sent.
"""

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import grpc
import numpy as np
from PIL import Image
from tiny_models import ATTRIBUTES, EMBEDDING, HEIGHT, WIDTH
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

Tensors = Mapping[str, np.ndarray]
CAMERA = "hostile"
LONGEST_ANSWER = 2000
# What the server may say; to a message that is no request, gRPC itself answers.
ANSWERS = {"OK", "INVALID_ARGUMENT"}
ANSWERS_BY_KIND = {"names": ANSWERS | {"NOT_FOUND"}, "messages": ANSWERS | {"NOT_FOUND", "INTERNAL", "UNIMPLEMENTED"}}
LEAKS = ("Traceback", ".py", "/1/", "/tmp", "/home", "/usr", "in the server; its log")
NUMBERS = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -1.0, 1.5, 1e6, 1e7)
WHOLE_NUMBERS = (0, -1, 10_001, 2**31 - 1, -(2**31), 100_000)
TEXTS = (
    *(b"", b"\xff\xfe", b"\xc3(", b"\xed\xa0\x80", b"a\0b", b"\0", "é".encode() * 300, b"../../etc/passwd", b"%s%n%x"),
    *(b"'; DROP TABLE crop; --", b'" OR 1=1 --', b"x') ; DELETE FROM crop WHERE ('1'='1", b"\\ud800", b"\x1b[2J", b"a" * 512),
)  # fmt: skip
JSON_VALUES = (
    *("null", "true", "0", "-0", "1e999", "NaN", "-Infinity", "1" * 5000, '"\\ud800"', '"\\u0000"', '"a\\u0000b"', "[]"),
    *("{}", "[[]]", '""', '"', "'x'", "{", "}", "[1,", '{"a"}', "", " ", "\ufeff{}", "2024-05-01", '"0001-01-01T00:00+23:59"'),
    *('"9999-12-31T23:59:59-23:59"', '"2024-02-30"', '"2024-05-01T25:00"', '"\'; DROP TABLE crop; --"', '["a", 1, null, {}]'),
    *('{"from": "9999-12-31T23:59:59-23:59"}', '{"from": 1}', '{"x": ["a"]}', '{"a": [1e999]}', '{"": []}', "1e-400"),
)  # fmt: skip


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


def message(model: str, tensors: Tensors, **fields: Any) -> ModelInferRequest:
    """A request of well-formed tensors."""
    request = ModelInferRequest(model_name=model, **fields)
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
        "change_query": {"INPUT__0": floats(1, EMBEDDING), "INPUT__1": floats(1, ATTRIBUTES), "INPUT__2": floats(1, ATTRIBUTES)},
    }[model]  # fmt: skip


MODELS = (
    *("describe_image", "decode_image", "match", "similar_search", "attribute_search", "gallery_search", "index_image"),
    *("gallery_write", "gallery_info", "gallery_admin", "image_encoder", "attribute_encoder", "change_query"),
)
TAKES_IMAGES = ("describe_image", "decode_image", "match", "similar_search", "index_image")


@cache
def good_images() -> dict[str, bytes]:
    """One image of each kind, with EXIF data."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a camera"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 24, 3), np.uint8)
    found = {}
    for kind, options in {"JPEG": {}, "PNG": {}, "WEBP": {"lossless": False}}.items():
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind, exif=exif, **options)
        found[kind] = stream.getvalue()
    return found


def fuzzed_image(chance: Random) -> tuple[str, ModelInferRequest]:
    """A JPEG, PNG or WebP with bytes changed, mostly in its head, cut out, doubled or cut off."""
    kind, image = chance.choice(list(good_images().items()))
    content = bytearray(image)
    for _ in range(chance.choice((1, 1, 2, 8, 40))):
        at = min(chance.randrange(len(content)), chance.randrange(len(content)), chance.randrange(len(content)))
        content[at] = chance.choice((0, 0xFF, 0x7F, 0x80, chance.randrange(256)))
    start, end = sorted((chance.randrange(len(content)), chance.randrange(len(content))))
    way = chance.randrange(6)
    if way == 0:
        del content[start:end]
    elif way == 1:
        content[start:start] = content[start:end]
    elif way == 2:
        del content[start:]
    elif way == 3 and kind == "PNG":
        content = bytearray(with_checksums(bytes(content)))
    return picture_for(chance, f"{kind} changed at random, way {way}", bytes(content))


def with_checksums(png: bytes) -> bytes:
    """A changed PNG whose chunks have the checksums that fit, so that what is in them is looked at."""
    result, at = png[:8], 8
    while at + 12 <= len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        body = png[at + 4 : at + 8 + length]
        result += png[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return result


def picture_for(chance: Random, what: str, content: bytes) -> tuple[str, ModelInferRequest]:
    model = chance.choice(TAKES_IMAGES)
    return f"{model}: {what}", message(model, sound(model, chance) | {"image": text(content)})


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, color: int = 2) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


@cache
def zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def bomb(chance: Random) -> tuple[str, ModelInferRequest]:
    """An image that claims, or unpacks to, far more than it is."""
    width, height = chance.choice(
        ((2**31 - 1, 1), (20_000, 20_000), (7000, 7000), (65_535, 65_535), (0, 0), (1, 2**31 - 1))
    )
    bombs = {
        f"PNG of {width} x {height}": lambda: png(width, height, chunk(b"IDAT", zeros(10**6))),
        "PNG of 36 megapixels": lambda: png(6000, 6000, chunk(b"IDAT", zeros(6000 * 6001)), depth=8, color=0),
        "PNG with too much in it": lambda: png(8, 8, chunk(b"IDAT", zeros(10**8))),
        "PNG with a text of 100 MB": lambda: png(8, 8, chunk(b"zTXt", b"k\0\0" + zeros(10**8)), chunk(b"IDAT", zeros(200))),
        "PNG with a colour profile of 100 MB": lambda: png(8, 8, chunk(b"iCCP", b"k\0\0" + zeros(10**8)), chunk(b"IDAT", zeros(200))),
        "PNG with 5000 texts": lambda: png(8, 8, *[chunk(b"zTXt", b"k\0\0" + zeros(10**5))] * 5000),
        "JPEG of 65500 x 65500": lambda: good_images()["JPEG"].replace(
            struct.pack(">HH", 48, 24), struct.pack(">HH", 65_500, 65_500)
        ),
        "WebP of 16384 x 16384": lambda: b"RIFF" + struct.pack("<I", 40) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff\x3f\0" * 2 + bytes(10),
    }  # fmt: skip
    what = chance.choice(list(bombs))
    return picture_for(chance, what, bombs[what]())


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
KEYS = {
    "filter": ("camera", "track", "time", "metadata", "city", ""),
    "options": ("rank", "by", "other"),
    "metadata": ("image", "camera", "time", "track", "note", "\\ud800"),
    "request": ("about", "do", "ids", "camera", "older_than", "dry_run", "after", "until", "count", "vectors"),
}
WORDS = {
    "filter": ('["1"]', '{"from": "2024-05-01"}', '{"note": [1]}'),
    "options": ('"tracks"', '"mean"'),
    "metadata": ('"1"', '"2024-05-01T12:00:00Z"'),
    "request": ('"missing"', '"model"', '"prune"', '"check_rows"', '"rows"', '["a"]', "1"),
}


def wrong_json(chance: Random) -> tuple[str, ModelInferRequest]:
    """JSON of known keys with wrong values, deep nesting, or no JSON."""
    name, models = chance.choice(list(JSON_INPUTS.items()))
    way = chance.randrange(5)
    if way == 0:
        content = chance.choice(JSON_VALUES)
    elif way == 1:
        depth = chance.choice((30, 200, 800, *range(900, 1000, 3), 100_000))
        content = f'{{"{chance.choice(KEYS[name])}": {"[" * depth}{"]" * depth}}}'
    elif way == 2:
        depth = chance.choice((30, 200, 470, 490, 100_000))
        content = f'{{"{chance.choice(KEYS[name])}": {json_chain(depth)}}}'
    else:
        pairs = [(chance.choice(KEYS[name]), chance.choice(JSON_VALUES + WORDS[name] * 4)) for _ in range(chance.randrange(1, 4))]  # fmt: skip
        content = "{" + ", ".join(f'"{key}": {value}' for key, value in pairs) + "}"
    model = chance.choice(models)
    inputs = sound(model, chance) | {name: text(content.encode("utf-8", "surrogatepass"))}
    return f"{model}: {name} {content[:60]!r} of {len(content)}", message(model, inputs)


def json_chain(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def wrong_text(chance: Random) -> tuple[str, ModelInferRequest]:
    """A text that is no UTF-8, SQL, or holds what texts should not."""
    model = chance.choice([each for each in MODELS if "image_encoder" != each])
    inputs = sound(model, chance)
    names = [name for name, values in inputs.items() if values.dtype == np.object_]
    if not names:
        return wrong_shape(chance)
    name, content = chance.choice(names), chance.choice(TEXTS)
    if name in ("metadata", "filter") and chance.random() < 0.7:
        quoted = json.dumps(content.decode("utf-8", "replace"))
        content = f'{{"camera": [{quoted}]}}' if name == "filter" else f'{{"camera": "{CAMERA}", {quoted}: {quoted}}}'
    return f"{model}: {name} = {content[:40]!r}", message(model, inputs | {name: text(content)})


def oversized(chance: Random) -> tuple[str, ModelInferRequest]:
    """A text of up to 2 MB, as it is and inside JSON."""
    size, sign = chance.choice((5000, 70_000, 2_000_000)), chance.choice(("a", "é", "\0", "'", "😀"))
    long = sign * (size // len(sign.encode()))
    name = chance.choice((*JSON_INPUTS, "id", "operation"))
    model = chance.choice(JSON_INPUTS.get(name, ("gallery_write",)))
    key = chance.choice(KEYS.get(name, ("",)))
    forms = (long, json.dumps(long), json.dumps({key: long}), json.dumps({key: [long]}), json.dumps({long: [long]}))
    many = json.dumps(
        {"filter": {"camera": [f"{n}" for n in range(size // 10)]}}.get(name, {"ids": ["x"] * (size // 10)})
    )
    content = chance.choice((*forms, many))
    return f"{model}: {name} {content[:30]!r} of {len(content)}", message(
        model, sound(model, chance) | {name: text(content)}
    )


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
    "images": fuzzed_image,
    "bombs": bomb,
    "numbers": wrong_number,
    "k": wrong_whole_number,
    "json": wrong_json,
    "texts": wrong_text,
    "oversized": oversized,
    "shapes": wrong_shape,
    "names": wrong_name,
    "messages": wrong_message,
}
