"""MATLAB's .mat files, read by field name, with errors that name the file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from descry.trainer.datasets.persons import DatasetError


def read_mat(path: Path, fields: Iterable[str]) -> dict[str, Any]:
    """The variables of a .mat file.

    Raises:
        DatasetError: the file is missing or damaged, or one of `fields` is not in it.
    """
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; put the original annotation file there, or give data.labels")
    try:
        content = loadmat(str(path))
    except Exception as error:  # scipy raises TypeError, ValueError, OSError or zlib.error by the kind of damage
        raise DatasetError(f"{path} is not a readable .mat file ({error}); download it again") from error
    require(path, fields, [name for name in content if not name.startswith("__")])
    return content


def read_struct(path: Path, parent: str, struct: Any, fields: Iterable[str]) -> dict[str, np.ndarray]:
    """The fields of a 1 x 1 struct, each flattened unless it is a matrix.

    Raises:
        DatasetError: `parent` holds no struct, or one of `fields` is not in it.
    """
    names = getattr(getattr(struct, "dtype", None), "names", None)
    if not names or struct.size != 1:
        raise DatasetError(f"{path}: {parent} is not a 1 x 1 struct; this is not the published file")
    require(path, (f"{parent}.{name}" for name in fields), [f"{parent}.{name}" for name in names])
    row = struct.reshape(-1)[0]
    return {name: row[name] if min(row[name].shape, default=0) > 1 else row[name].ravel() for name in names}


def require(path: Path, wanted: Iterable[str], present: list[str]) -> None:
    """Refuse a file that lacks a field; the message lists what it holds."""
    missing = [field for field in wanted if field not in present]
    if missing:
        raise DatasetError(f"{path}: field {missing[0]!r} is missing; it holds {', '.join(sorted(present))}")


def texts(cells: np.ndarray) -> list[str]:
    """The strings of a cell array."""
    return [str(np.asarray(cell).item()) for cell in cells.ravel()]
