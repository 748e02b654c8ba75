"""A progress line: rewritten in place on a terminal, else repeated every ten seconds."""

import time
from typing import TextIO


class Progress:
    """One line that says how far and how fast."""

    def __init__(self, total: int, stream: TextIO, what: str = "images") -> None:
        """Start the clock; `total` counts `what`."""
        self.total, self.stream, self.what = total, stream, what
        self.end = "\r" if stream.isatty() else "\n"
        self.start = self.shown = time.monotonic()
        self.done = self.sent = 0

    def step(self, done: int = 1, sent: int = 1) -> None:
        """Count what is done, and how much of it had to be sent."""
        self.done, self.sent = self.done + done, self.sent + sent
        if time.monotonic() - self.shown >= (0.2 if self.end == "\r" else 10):
            self.show(self.end)

    def show(self, end: str = "\n") -> None:
        """Print the line."""
        self.shown = time.monotonic()
        rate = self.sent / max(self.shown - self.start, 1e-9)
        line = f"{self.done}/{self.total} {self.what}, {rate:.0f} {self.what}/s  "
        print(line, end=end, file=self.stream, flush=True)
