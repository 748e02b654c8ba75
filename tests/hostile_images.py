"""Images that mean harm: changed at random, or far larger than they look. Each comes with what is wrong with it."""

import io
import struct
import zlib
from functools import cache
from random import Random

import numpy as np
from PIL import Image


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


def fuzzed_image(chance: Random) -> tuple[str, bytes]:
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
    return f"{kind} changed at random, way {way}", bytes(content)


def with_checksums(png: bytes) -> bytes:
    """A changed PNG whose chunks have the checksums that fit, so that what is in them is looked at."""
    result, at = png[:8], 8
    while at + 12 <= len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        body = png[at + 4 : at + 8 + length]
        result += png[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return result


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, color: int = 2) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


def webp_head() -> bytes:
    return b"RIFF" + struct.pack("<I", 40) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0"


@cache
def zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def bomb(chance: Random) -> tuple[str, bytes]:
    """An image that claims, or unpacks to, far more than it is."""
    width, height = chance.choice(
        ((2**31 - 1, 1), (20_000, 20_000), (7000, 7000), (65_535, 65_535), (0, 0), (1, 2**31 - 1))
    )
    plain, profile = chunk(b"IDAT", zeros(200)), b"k\0\0" + zeros(10**8)
    bombs = {
        f"PNG of {width} x {height}": lambda: png(width, height, chunk(b"IDAT", zeros(10**6))),
        "PNG of 36 megapixels": lambda: png(6000, 6000, chunk(b"IDAT", zeros(6000 * 6001)), color=0),
        "PNG with too much in it": lambda: png(8, 8, chunk(b"IDAT", zeros(10**8))),
        "PNG with a text of 100 MB": lambda: png(8, 8, chunk(b"zTXt", profile), plain),
        "PNG with a colour profile of 100 MB": lambda: png(8, 8, chunk(b"iCCP", profile), plain),
        "PNG with 5000 texts": lambda: png(8, 8, *[chunk(b"zTXt", b"k\0\0" + zeros(10**5))] * 5000, plain),
        "JPEG of 65500 x 65500": lambda: good_images()["JPEG"].replace(
            struct.pack(">HH", 48, 24), struct.pack(">HH", 65_500, 65_500)
        ),
        "WebP of 16384 x 16384": lambda: webp_head() + b"\xff\x3f\0" * 2 + bytes(10),
    }
    what = chance.choice(list(bombs))
    return what, bombs[what]()
