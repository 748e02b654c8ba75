"""Keep what finished sweeps have measured, small enough for a repository: settings, numbers and curves.

    python -m descry.trainer.record runs/sweeps/NAME … --to docs/results/runs

Of each sweep `NAME/`: for every run a JSON file with its configuration, data digests, machine, time, losses by epoch
and test results; the table `results.md`; and `curves.png`, all losses of all runs by epoch.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from descry.trainer.checkpoint import CONFIG, METRICS, write_atomically
from descry.trainer.drawing import page, save
from descry.trainer.state import History
from descry.trainer.sweep import RESULT

COLUMNS = 4
# Of a run's `metrics.json`: where its numbers come from.
ORIGIN = ("data", "seconds", "machine", "split")
NO_LOSS = ("total", "stage", "epoch")


class RecordError(ValueError):
    """A folder holds nothing to keep; the message names it."""


def epoch_means(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean of every loss that was logged in an epoch: `stage`, `epoch` and the losses, in order."""
    epochs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for entry in history:
        if "loss" in entry:
            epochs.setdefault((entry["stage"], entry["epoch"]), []).append(entry)
    return [
        {"stage": stage, "epoch": epoch, **{name: _mean(entries, name) for name in entries[0] if name not in NO_LOSS}}
        for (stage, epoch), entries in epochs.items()
    ]


def _mean(entries: Sequence[dict[str, Any]], name: str) -> float:
    values = [entry[name] for entry in entries if name in entry]
    return round(sum(values) / len(values), 6)


def record_run(run: Path) -> dict[str, Any]:
    """What is kept of a run's folder; `test` and what `metrics.json` has only of runs that have them."""
    config = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    metrics, test = (
        json.loads((run / name).read_text(encoding="utf-8")) if (run / name).is_file() else {}
        for name in (METRICS, RESULT)
    )
    kept = {"config": config, **{name: metrics[name] for name in ORIGIN if name in metrics}}
    return {**kept, "training": epoch_means(History(run).read()), **({"test": test} if test else {})}


def draw_curves(runs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A panel for each loss, a line for each run, over the run's epochs in order (`epoch_means`)."""
    names = list(dict.fromkeys(key for epochs in runs.values() for entry in epochs for key in entry))
    names = [name for name in names if name not in NO_LOSS]
    rows = math.ceil(len(names) / COLUMNS)
    figure = page(3 * COLUMNS, 2.4 * rows + 0.4)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for axis, name in zip(axes, names, strict=False):
        for run, epochs in runs.items():
            points = [(number, entry[name]) for number, entry in enumerate(epochs, start=1) if name in entry]
            axis.plot(*(zip(*points, strict=True) if points else ([], [])), marker=".", linewidth=1, label=run)
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        axis.grid(alpha=0.3)
    for axis in list(figure.axes)[len(names) :]:
        axis.set_axis_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=8)
    save(figure, path)


def record_sweep(sweep: Path, target: Path) -> int:
    """Keep a sweep's folder in `target`; the number of its runs.

    Raises:
        RecordError: there is no run in it.
    """
    runs = sorted(path.parent for path in sweep.glob(f"*/{CONFIG}"))
    kept = {run.name: record_run(run) for run in runs}
    kept = {name: content for name, content in kept.items() if content["training"]}
    if not kept:
        raise RecordError(f"{sweep} has no run: give a folder of runs/sweeps")
    target.mkdir(parents=True, exist_ok=True)
    for name, content in kept.items():
        write_atomically(target / f"{name}.json", (json.dumps(content, indent=1) + "\n").encode())
    if (sweep / "results.md").is_file():
        write_atomically(target / "results.md", (sweep / "results.md").read_bytes())
    draw_curves({name: content["training"] for name, content in kept.items()}, target / "curves.png")
    return len(kept)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when a folder holds nothing to keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweeps", type=Path, nargs="+", help="folders that sweeps have left")
    parser.add_argument("--to", type=Path, required=True, help="receives one folder a sweep")
    options = parser.parse_args(arguments)
    try:
        for sweep in options.sweeps:
            count = record_sweep(sweep, options.to / sweep.name)
            print(f"{options.to / sweep.name}: {count} runs")
    except RecordError as error:
        print(f"record: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
