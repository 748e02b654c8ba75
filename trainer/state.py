"""What a run leaves behind to be resumed and read: progress, Accelerate's state, history."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from accelerate import Accelerator

from descry.trainer.checkpoint import write_atomically


@dataclass
class Progress:
    """Where a run stands; all that resuming needs beside Accelerate's state.

    Attributes:
        stage, epoch, step: the next ones; `step` counts batches of the epoch.
        total: batches so far, over all stages.
        best: best validation mAP so far.
        seconds: of training and validation so far, without what an interruption lost.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    total: int = 0
    best: float = -1.0
    seconds: float = 0.0

    @classmethod
    def load(cls, state: Path) -> "Progress":
        """Read a saved state's progress."""
        return cls(**json.loads((state / "progress.json").read_text(encoding="utf-8")))


def save_state(accelerator: Accelerator, directory: Path, progress: Progress) -> None:
    """Save a resumable state under a temporary name, rename it, then remove the older ones; call on all processes."""
    partial = directory / "state" / "partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial / "accelerate"))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_atomically(partial / "progress.json", json.dumps(asdict(progress)).encode())
        older = _states(directory)
        whole = directory / "state" / f"step-{progress.total:08d}"
        shutil.rmtree(whole, ignore_errors=True)
        partial.rename(whole)
        for state in older:
            if state != whole:
                shutil.rmtree(state)
    accelerator.wait_for_everyone()


def latest_state(directory: Path) -> Path | None:
    """The state furthest on, or None."""
    return max(_states(directory), key=lambda state: Progress.load(state).total, default=None)


def _states(directory: Path) -> list[Path]:
    return [path.parent for path in (directory / "state").glob("step-*/progress.json")]


class History:
    """`history.jsonl`: one line a logged step or epoch, in order, each with `total`, the steps before it."""

    def __init__(self, directory: Path) -> None:
        """Use the file in a run's folder."""
        self.path = directory / "history.jsonl"

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All lines; empty when there is no file."""
        if not self.path.is_file():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def forget_after(self, total: int) -> None:
        """Drop what was logged after step `total`: a resumed run logs it again."""
        kept = [entry for entry in self.read() if entry["total"] <= total]
        if self.path.is_file():
            write_atomically(self.path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())


class DivergenceError(FloatingPointError):
    """Training has diverged; the message says when, which loss, and what is left."""


# A stage's first logged values of a loss say what is usual for it.
USUAL_FROM = 10


class DivergenceGuard:
    """Notices that a stage diverges: a value that is not finite, or a loss far above what it was at first.

    Args:
        factor: a loss may be so many times the median of its first ten logged values, or of 1 if that is more; 0 = any.
        entries: what the history has of the stage, so that a resumed run judges as an uninterrupted one.
    """

    def __init__(self, factor: float, entries: Sequence[Mapping[str, Any]]) -> None:
        """Learn what is usual from `entries`."""
        self.factor = factor
        self.first: dict[str, list[float]] = {}
        for entry in entries:
            for name, value in entry.get("losses", {}).items():
                self._learn(name, value)

    def check(self, losses: Mapping[str, float], gradient_norms: Mapping[str, float]) -> None:
        """Judge the values of a logged step, by update.

        Raises:
            DivergenceError: they are those of a run that diverges.
        """
        for what, values in (("loss", losses), ("gradient norm", gradient_norms)):
            for name, value in values.items():
                if not math.isfinite(value):
                    raise DivergenceError(f"the {what} of update {name!r} is {value}")
        for name, value in losses.items():
            self._learn(name, value)
            usual = max(1.0, median(self.first[name]))
            if self.factor and value > self.factor * usual:
                raise DivergenceError(
                    f"the loss of update {name!r} is {value:.4g}, more than {self.factor:g} times the {usual:.4g} of "
                    "its first steps"
                )

    def _learn(self, name: str, value: float) -> None:
        first = self.first.setdefault(name, [])
        if len(first) < USUAL_FROM:
            first.append(value)
