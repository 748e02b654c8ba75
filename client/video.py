"""Frames of a video by number, for crops of detected boxes. Needs PyAV, the extra `video`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from descry.client.errors import InvalidRequest


class Video:
    """A video file, read forward; an earlier frame than the last one starts it again."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            InvalidRequest: PyAV is missing, or the file is no video.
        """
        self._path = path
        self._start()

    @property
    def frames_per_second(self) -> float:
        """The mean rate that the file states.

        Raises:
            InvalidRequest: it states none.
        """
        rate = self._container.streams.video[0].average_rate
        if not rate:
            raise InvalidRequest(f"{self._path} does not state its frame rate; give it as 'fps'")
        return float(rate)

    def frame(self, number: int) -> Image.Image:
        """The frame that is shown as the `number`-th, from 0 on.

        Raises:
            InvalidRequest: the video ends before it, or is damaged.
        """
        if number < self._number:
            self.close()
            self._start()
        frame = None
        while self._number < number:
            try:
                frame = next(self._frames)
            except Exception as error:  # StopIteration, or whatever a decoder of foreign bytes raises
                reason = "ends" if isinstance(error, StopIteration) else f"is damaged ({error})"
                raise InvalidRequest(f"{self._path.name} {reason} before frame {number}") from error
            self._number += 1
        if frame is not None:
            self._frame = frame.to_image()
        return self._frame

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _start(self) -> None:
        """Stand before the first frame."""
        self._container = self._open()
        self._frames: Iterator[Any] = self._container.decode(video=0)
        self._number, self._frame = -1, Image.new("RGB", (0, 0))

    def _open(self) -> Any:
        try:
            import av
        except ImportError as error:
            raise InvalidRequest("videos need PyAV: pip install 'descry-search[video]'") from error
        try:
            container = av.open(str(self._path))
        except av.error.FFmpegError as error:
            raise InvalidRequest(f"cannot read the video {self._path}: {error}") from error
        if not container.streams.video:
            raise InvalidRequest(f"{self._path} holds no video")
        return container
