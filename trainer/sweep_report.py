"""What a sweep has found: a table and a plot, mean and spread over the seeds."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from descry.trainer.checkpoint import write_atomically

COLUMNS = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mAP": "mAP", "mA": "PAR mA"}
# Shown where a row has them.
FURTHER_COLUMNS = {"reid_mAP": "re-ID mAP", "reid_rank1": "re-ID rank-1"}


@dataclass(frozen=True)
class Measured:
    """A row of a sweep.

    Attributes:
        name: of the row.
        values: its settings by dotted key.
        published: rank-1 of the paper in percent, None = it has none.
        seeds: metrics in 0..1 of each run by `COLUMNS`, and by `FURTHER_COLUMNS` where it measured them.
    """

    name: str
    values: dict[str, Any]
    published: float | None
    seeds: list[dict[str, float]] = field(default_factory=list)

    def percent(self, metric: str) -> tuple[float, float]:
        """Mean and standard deviation (0 for one seed) over the seeds that measured it, in percent."""
        numbers = [100 * seed[metric] for seed in self.seeds if metric in seed]
        return mean(numbers), stdev(numbers) if len(numbers) > 1 else 0.0

    def has(self, metric: str) -> bool:
        """Whether a seed measured it."""
        return any(metric in seed for seed in self.seeds)


def write_report(directory: Path, title: str, keys: Sequence[str], rows: Sequence[Measured]) -> None:
    """Write `results.json`, `results.md` and `results.png`; nothing when no row has been measured.

    Args:
        directory: of the sweep.
        title: of the plot.
        keys: the dotted keys of the grid; empty for a table of named rows.
        rows: what has been measured.
    """
    if not rows:
        return
    write_atomically(directory / "results.json", (json.dumps([asdict(row) for row in rows], indent=2) + "\n").encode())
    write_atomically(directory / "results.md", format_rows(rows).encode())
    draw_rows(title, keys, rows).savefig(directory / "results.png", dpi=110)


def format_rows(rows: Sequence[Measured]) -> str:
    """A markdown table in percent: mean ± standard deviation over the seeds, the paper's rank-1 beside it."""
    published = any(row.published is not None for row in rows)
    columns = COLUMNS | {key: name for key, name in FURTHER_COLUMNS.items() if any(row.has(key) for row in rows)}
    names = ["", *columns.values(), "seeds", *(["rank-1, published"] if published else [])]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [_cell(*row.percent(metric), len(row.seeds)) if row.has(metric) else "" for metric in columns]
        ours = [row.name, *cells, str(len(row.seeds))]
        theirs = ["" if row.published is None else f"{row.published:.1f}"] if published else []
        lines.append("| " + " | ".join([*ours, *theirs]) + " |")
    return "\n".join(lines) + "\n"


def _cell(center: float, spread: float, count: int) -> str:
    return f"{center:.1f} ± {spread:.1f}" if count > 1 else f"{center:.1f}"


def draw_rows(title: str, keys: Sequence[str], rows: Sequence[Measured]) -> Figure:
    """Rank-1 and mAP: against the key of a grid, one line a value of its second key; bars for named rows."""
    figure = Figure(figsize=(9, 3.6), facecolor="white", layout="constrained")
    figure.suptitle(title, fontsize=10)
    for axis, metric in zip(figure.subplots(1, 2), ("rank1", "mAP"), strict=True):
        if keys:
            _draw_lines(axis, metric, keys, rows)
        else:
            _draw_bars(axis, metric, rows)
        axis.grid(alpha=0.3)
    return figure


def _draw_lines(axis: Axes, metric: str, keys: Sequence[str], rows: Sequence[Measured]) -> None:
    lines: dict[str, list[Measured]] = {}
    for row in rows:
        lines.setdefault(", ".join(f"{_short(key)} {row.values[key]}" for key in keys[1:]) or "measured", []).append(
            row
        )
    for label, points in lines.items():
        centers, spreads = zip(*(row.percent(metric) for row in points), strict=True)
        at = [row.values[keys[0]] for row in points]
        axis.errorbar(at, centers, yerr=spreads if any(spreads) else None, marker="o", capsize=3, label=label)
        published = [(row.values[keys[0]], row.published) for row in points if row.published is not None]
        if published and metric == "rank1":
            axis.plot(*zip(*published, strict=True), linestyle="--", marker=".", color="grey", label="published")
    axis.set(xlabel=_short(keys[0]), ylabel=f"{COLUMNS[metric]}, %")
    axis.legend(fontsize=7)


def _draw_bars(axis: Axes, metric: str, rows: Sequence[Measured]) -> None:
    names = [row.name for row in reversed(rows)]
    centers, spreads = zip(*(row.percent(metric) for row in reversed(rows)), strict=True)
    bars = axis.barh(names, centers, xerr=spreads if any(spreads) else None, capsize=3, color="#4c78a8")
    axis.bar_label(bars, fmt="%.1f", fontsize=7, padding=3)
    axis.set(xlabel=f"{COLUMNS[metric]}, %")
    axis.tick_params(axis="y", labelsize=7)
    axis.margins(x=0.12)


def _short(key: str) -> str:
    return key.rpartition(".")[2].replace("_", " ")
