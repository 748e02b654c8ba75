"""Texts and JSON that mean harm, for the inputs of docs/wire.md that hold text."""

import json
from random import Random

TEXTS = (
    *(b"", b"\xff\xfe", b"\xc3(", b"\xed\xa0\x80", b"a\0b", b"\0", "é".encode() * 300, b"../../etc/passwd", b"%s%n%x"),
    *(b"'; DROP TABLE crop; --", b'" OR 1=1 --', b"x') ; DELETE FROM crop WHERE ('1'='1", b"\\ud800", b"\x1b[2J"),
)
JSON_VALUES = (
    *("null", "true", "0", "-0", "1e999", "1e-400", "NaN", "-Infinity", "1" * 5000, "[]", "{}", "[[]]", '""'),
    *('"', "'x'", "{", "}", "[1,", '{"a"}', "", " ", "\ufeff{}", "2024-05-01", '"\\ud800"', '"\\u0000"', '"a\\u0000b"'),
    *('"2024-02-30"', '"0001-01-01T00:00+23:59"', '"9999-12-31T23:59:59-23:59"', '"2024-05-01T25:00"', '{"from": 1}'),
    *('{"from": "9999-12-31T23:59:59-23:59"}', '{"x": ["a"]}', '{"a": [1e999]}', '{"": []}', '["a", 1, null, {}]'),
)
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


def malformed_json(name: str, chance: Random) -> bytes:
    """JSON for the input `name`, most of it wrong."""
    way, key = chance.randrange(5), chance.choice(KEYS[name])
    if way == 0:
        return chance.choice(JSON_VALUES).encode()
    if way == 1:
        depth = chance.choice((30, 200, 800, *range(900, 1000, 3), 100_000))
        return f'{{"{key}": {"[" * depth}{"]" * depth}}}'.encode()
    if way == 2:
        depth = chance.choice((30, 200, 470, 490, 100_000))
        return ('{"a":' * depth + "1" + "}" * depth).encode()
    values = JSON_VALUES + WORDS[name] * 4
    pairs = [(chance.choice(KEYS[name]), chance.choice(values)) for _ in range(chance.randrange(1, 4))]
    return ("{" + ", ".join(f'"{key}": {value}' for key, value in pairs) + "}").encode()


def quoted(name: str, content: bytes) -> bytes:
    """A text as a value of a filter, or as key and value of metadata."""
    text = json.dumps(content.decode("utf-8", "replace"))
    return (f'{{"camera": [{text}]}}' if name == "filter" else f"{{{text}: {text}}}").encode()


def long_text(name: str, chance: Random) -> bytes:
    """A text of 5 kB to 2 MB, as it is and inside JSON."""
    size, sign = chance.choice((5000, 70_000, 2_000_000)), chance.choice(("a", "é", "\0", "'", "😀"))
    long, key = sign * (size // len(sign.encode())), chance.choice(KEYS.get(name, ("",)))
    several = [f"{number}" for number in range(size // 10)]
    forms = (
        long,
        {key: long},
        {key: [long]},
        {long: [long]},
        {"camera": several},
        {"about": "missing", "ids": several},
    )
    form = chance.choice(forms)
    return (form if isinstance(form, str) else json.dumps(form)).encode()
