"""Image references: how the gallery names the crop of a row, and how it is found again below one folder.

| reference | image |
|---|---|
| `0001/a.jpg` | a file |
| `shard.tar/0001/a.jpg` | a member of an uncompressed tar file |
| `door.mp4#frame=12&xywh=10,20,64,128` | a box of a video frame, in pixels: left, top, width, height |
"""

import re
import tarfile
from pathlib import Path, PurePosixPath
from types import TracebackType

from PIL import Image

from descry.client.errors import InvalidRequest
from descry.client.video import Video

BOX = re.compile(r"(?P<video>.+)#frame=(?P<frame>\d+)&xywh=(?P<box>-?\d+,-?\d+,\d+,\d+)", re.DOTALL)
TAR = ".tar"


def box_reference(video: str, frame: int, box: tuple[int, int, int, int]) -> str:
    """The reference of a box (left, top, width, height) of a video frame."""
    return f"{video}#frame={frame}&xywh={','.join(map(str, box))}"


class TarIndex:
    """Where the members of an uncompressed tar file lie; they are read in any order, by one thread at a time.

    Attributes:
        members: offset and size in bytes by name.
        damage: why members may be missing; None for a whole file.
    """

    def __init__(self, path: Path) -> None:
        """Read the headers.

        Raises:
            InvalidRequest: not readable as such a file.
        """
        self._path = path
        self.members: dict[str, tuple[int, int]] = {}
        self.damage: str | None = None
        try:
            with tarfile.open(path, "r:") as tar:
                self._read_headers(tar)
            self._file = path.open("rb")
        except (OSError, tarfile.TarError) as error:
            raise InvalidRequest(f"cannot read the tar file {path}: {error}; it must be uncompressed") from error

    def read(self, name: str) -> bytes:
        """The content of a member.

        Raises:
            InvalidRequest: it has no such member, or is cut off within it.
        """
        if name not in self.members:
            raise InvalidRequest(f"{self._path.name} holds no {name}")
        offset, size = self.members[name]
        self._file.seek(offset)
        content = self._file.read(size)
        if len(content) < size:
            raise InvalidRequest(f"{self._path.name} is cut off within {name}")
        return content

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_headers(self, tar: tarfile.TarFile) -> None:
        try:
            for member in tar:
                if member.isfile():
                    self.members[PurePosixPath(member.name).as_posix()] = member.offset_data, member.size
        except tarfile.ReadError as error:
            self.damage = f"the file is cut off or damaged after {len(self.members)} members ({error})"


class References:
    """The images below one folder by their references, as a context manager; for one thread at a time."""

    def __init__(self, root: Path) -> None:
        """Prepare; files are opened when first asked for."""
        self.root = root
        self._tars: dict[Path, TarIndex] = {}
        self._videos: dict[Path, Video] = {}

    def __enter__(self) -> "References":
        """Return the object itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every file."""
        opened: list[TarIndex | Video] = [*self._tars.values(), *self._videos.values()]
        for file in opened:
            file.close()

    def image(self, reference: str) -> Path | bytes | Image.Image:
        """A file's path, a member's bytes, or a box of a frame.

        Raises:
            InvalidRequest: outside the folder, or not there. A file that is missing shows when it is read.
        """
        boxed = BOX.fullmatch(reference)
        if boxed is None:
            path = self._below(reference)
            inside = self._tar_of(path)
            return path if inside is None else self.tar(inside).read(path.relative_to(inside).as_posix())
        left, top, width, height = (int(value) for value in boxed["box"].split(","))
        frame = self.video(self._below(boxed["video"])).frame(int(boxed["frame"]))
        box = max(0, left), max(0, top), min(frame.width, left + width), min(frame.height, top + height)
        if box[0] >= box[2] or box[1] >= box[3]:
            raise InvalidRequest(f"the box lies outside the frame, which has {frame.width} x {frame.height} pixels")
        return frame.crop(box)

    def tar(self, path: Path) -> TarIndex:
        """The tar file, opened once."""
        if path not in self._tars:
            self._tars[path] = TarIndex(path)
        return self._tars[path]

    def video(self, path: Path) -> Video:
        """The video, opened once."""
        if path not in self._videos:
            self._videos[path] = Video(path)
        return self._videos[path]

    def _below(self, reference: str) -> Path:
        """The path; links are followed, as they are the doing of who owns the folder."""
        path = Path(reference)
        if path.is_absolute() or path.drive or ".." in path.parts or not path.parts:
            raise InvalidRequest(f"{reference} lies outside the image folder {self.root}")
        return self.root / path

    def _tar_of(self, path: Path) -> Path | None:
        """The tar file that the path leads into, if any."""
        inside = (parent for parent in path.parents if parent.suffix == TAR and parent.is_relative_to(self.root))
        return next((parent for parent in inside if parent.is_file()), None)
