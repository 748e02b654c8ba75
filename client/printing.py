"""How commands print what they found: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from descry.client.errors import InvalidRequest


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Left-aligned columns, two spaces apart."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def print_json(content: Mapping[str, Any]) -> None:
    """Print one object."""
    print(json.dumps(content, indent=2, ensure_ascii=False))


def print_next(command: str) -> None:
    """Say on stderr what to do next."""
    print(f"next: {command}", file=sys.stderr)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write one object to a file.

    Raises:
        InvalidRequest: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror}") from error
