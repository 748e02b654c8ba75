"""Decoded crops on disk: memory-mapped uint8 at the training size, so that only the first epoch decodes an image.

A cache is a sub-folder of the folder that the user names, called by its size and the digest of what its pixels depend
on: the preprocessing, and of every image the path, size and time of change. A changed image or size is another cache,
never a stale one; remove old ones with `rm -r`.

    pixels.uint8    [n, 3, H, W], sparse until written
    written.uint8   [n], 1 once the row's pixels are there

Any number of processes may read and write the same rows: all write the same bytes, and the flag last, so that a killed
process leaves a row without its flag. Keep the folder on a local disk, and remove it after a power cut: the disk may
have saved flags before pixels.
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from descry.trainer.datasets.persons import DatasetError

DEFAULT_FOLDER = "runs/cache"
# Part of every digest: raise it when the files or the decoding change.
FORMAT = 1
ADVICE = "choose another folder with --cache DIR, or none with --cache ''"


class PixelCache:
    """Pixels of a list of images, row by row as they are written.

    Only paths and sizes are pickled; each process maps the files when it first reads.

    Attributes:
        folder: of this cache's files.
    """

    def __init__(self, root: Path, images: Sequence[Path], height: int, width: int, preprocessing: str) -> None:
        """Find or make the cache of `images` under `root`.

        Args:
            root: folder of all caches.
            images: one a row.
            height: of all images, pixels.
            width: of all images, pixels.
            preprocessing: whatever else the pixels depend on, as text.

        Raises:
            DatasetError: an image is missing, or the folder cannot be written or has too little room.
        """
        digest = digest_images(images, f"{FORMAT} {height} {width} {preprocessing}")
        self.folder = root.absolute() / f"{height}x{width}-{digest[:32]}"
        self.shape = (len(images), 3, height, width)
        self._mapped: tuple[np.ndarray, np.ndarray] | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path, size in self._files().items():
                with path.open("ab") as file:
                    file.truncate(size)
            self._check_room()
        except OSError as error:
            raise DatasetError(f"cannot write the pixel cache {self.folder}: {error}; {ADVICE}") from error

    def is_full(self) -> bool:
        """Whether every row is written."""
        return bool(np.fromfile(self.folder / "written.uint8", np.uint8).all())

    def read(self, row: int) -> Tensor | None:
        """A copy of the pixels, uint8 [3, H, W]; None before they are written."""
        if self._mapped is None:
            of_pixels, of_written = self._files()
            self._mapped = _map(of_pixels, self.shape), _map(of_written, self.shape[:1])
        pixels, written = self._mapped
        return torch.from_numpy(pixels[row].copy()) if written[row] else None

    def write(self, row: int, image: Tensor) -> None:
        """Keep the pixels, uint8 [3, H, W], of a row.

        Raises:
            DatasetError: the disk is full, or the files are gone.
        """
        pixels, written = self._files()
        try:
            # Through the file, not the map: a full disk is then an error and not a killed process.
            _write_at(pixels, row * image.nbytes, image.numpy().tobytes())
            _write_at(written, row, b"\1")
        except OSError as error:
            raise DatasetError(f"cannot write row {row} of the pixel cache {pixels}: {error}; {ADVICE}") from error

    def _files(self) -> dict[Path, int]:
        count = self.shape[0]
        return {self.folder / "pixels.uint8": int(np.prod(self.shape)), self.folder / "written.uint8": count}

    def _check_room(self) -> None:
        files = self._files()
        needed = sum(files.values()) - sum(path.stat().st_blocks * 512 for path in files)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise DatasetError(
                f"the pixel cache of {self.shape[0]} images at {self.shape[2]} x {self.shape[3]} needs "
                f"{needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free at {self.folder}; {ADVICE}"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Without the maps, whose pickle would be a copy of all pixels."""
        return {**vars(self), "_mapped": None}


def digest_images(images: Sequence[Path], preprocessing: str) -> str:
    """SHA-256, hexadecimal, of paths, sizes and times of change, and of what else a result depends on, as text.

    Raises:
        DatasetError: an image is missing.
    """
    digest = hashlib.sha256(preprocessing.encode())
    for image in images:
        path = image.absolute()
        try:
            status = path.stat()
        except OSError as error:
            raise DatasetError(
                f"cannot read {path}: {error}; replace the file or take its row out of the labels"
            ) from error
        digest.update(f"\n{path}\0{status.st_size}\0{status.st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _map(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    # A plain array over the map: np.memmap's own class makes every row cost microseconds more.
    return np.asarray(np.memmap(path, np.uint8, "r", shape=shape))


def _write_at(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
