"""The tables and the figure of a comparison, from kept evaluations."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.axes import Axes

from descry.trainer.drawing import page, save
from descry.trainer.markdown import markdown_table

HEADER = (
    *("method", "ranked by", "rank-1 (95 %)", "rank-5", "mAP (95 %)", "mAP, trapezoid", "seen", "unseen"),
    *("PAR mA", "parameters", "seeds", "published"),
)


class ComparisonError(ValueError):
    """A comparison cannot be made; the message names the next step."""


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        name: as printed.
        distance: what ranks: `embedding`, `par` or `fused`.
        published: the paper's rank-1 and mAP in percent, where it has them.
        evaluations: of each seed, as `evaluate --json` prints them.
    """

    name: str
    distance: str
    published: tuple[float, ...]
    evaluations: Sequence[dict[str, Any]]

    def center(self, metric: str, group: str = "all") -> float:
        """Mean over the seeds, in percent; NaN where no query is of the group."""
        return mean(self._seeds(metric, group))

    def spread(self, metric: str) -> float:
        """Standard deviation over the seeds, in percent; 0 for one."""
        numbers = self._seeds(metric, "all")
        return stdev(numbers) if len(numbers) > 1 else 0.0

    def bounds(self, metric: str) -> tuple[float, float]:
        """95 % interval over the queries, in percent, mean over the seeds."""
        found = [one["intervals"][self.distance]["all"][metric] for one in self.evaluations]
        return 100 * mean(low for low, _ in found), 100 * mean(high for _, high in found)

    def _seeds(self, metric: str, group: str) -> list[float]:
        searched = [one["search"][self.distance].get(group, {}) for one in self.evaluations]
        return [100 * metrics.get(metric, math.nan) for metrics in searched]


def format_table(lines: Sequence[Line]) -> str:
    """A Markdown table, the best rank-1 and mAP in bold; a line without evaluations says so."""
    measured = [line for line in lines if line.evaluations]
    best = {metric: max((line.center(metric) for line in measured), default=0.0) for metric in ("rank1", "mAP")}
    cells = [_cells(line, best) if line.evaluations else _empty_cells(line) for line in lines]
    return markdown_table(HEADER, cells)


def _empty_cells(line: Line) -> list[str]:
    return [line.name, line.distance, "not run yet", *[""] * (len(HEADER) - 4), _published(line)]


def _cells(line: Line, best: dict[str, float]) -> list[str]:
    recognised = mean(100 * one["attributes"]["mA"] for one in line.evaluations)
    size = line.evaluations[0]["model"]["parameters"] / 1e6
    return [
        *(line.name, line.distance, _estimate(line, "rank1", best), f"{line.center('rank5'):.1f}"),
        *(_estimate(line, "mAP", best), f"{line.center('mAP_trapezoid'):.1f}", _pair(line, "seen")),
        *(_pair(line, "unseen"), f"{recognised:.1f}", f"{size:.1f} M", str(len(line.evaluations)), _published(line)),
    ]


def _estimate(line: Line, metric: str, best: dict[str, float]) -> str:
    text = f"{line.center(metric):.1f}" + (f" ± {line.spread(metric):.1f}" if len(line.evaluations) > 1 else "")
    low, high = line.bounds(metric)
    return (f"**{text}**" if line.center(metric) == best[metric] else text) + f" ({low:.1f} to {high:.1f})"


def _pair(line: Line, group: str) -> str:
    numbers = [line.center(metric, group) for metric in ("rank1", "mAP")]
    return "" if math.isnan(numbers[0]) else " / ".join(f"{number:.1f}" for number in numbers)


def _published(line: Line) -> str:
    return " / ".join(f"{number:.1f}" for number in line.published)


def fill_page(text: str, tables: dict[str, str]) -> str:
    """The page with each table between `<!-- table NAME -->` and `<!-- end -->`.

    Raises:
        ComparisonError: the page has no place for a table.
    """
    for name, table in tables.items():
        start = f"<!-- table {name} -->\n"
        place = re.compile(f"{re.escape(start)}.*?<!-- end -->", re.DOTALL)
        if not place.search(text):
            raise ComparisonError(
                f"the page has no place for the table {name}: put `{start.strip()}` and `<!-- end -->` into it"
            )
        filled = f"{start}\n{table}\n\n<!-- end -->"
        text = place.sub(lambda _, filled=filled: filled, text)  # type: ignore[misc]
    return text


def draw_comparison(tables: Mapping[str, Sequence[Line]], path: Path) -> None:
    """A panel a table: mAP of each line with its 95 % interval over the queries."""
    shown = {name: [line for line in lines if line.evaluations] for name, lines in tables.items()}
    height = 0.9 + 0.34 * max(len(lines) for lines in shown.values())
    figure = page(5.2 * len(shown), height)
    for axis, (name, lines) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        _draw_panel(axis, lines)
        axis.set_title(name)
    figure.supxlabel("mAP in percent, with its 95 % interval over the queries", fontsize=10)
    save(figure, path)


def _draw_panel(axis: Axes, lines: Sequence[Line]) -> None:
    for position, line in enumerate(reversed(lines)):
        center, (low, high) = line.center("mAP"), line.bounds("mAP")
        axis.barh(position, center, color="#4c78a8", height=0.7)
        axis.errorbar(center, position, xerr=[[center - low], [high - center]], color="black", capsize=3, linewidth=1)
    axis.set_yticks(range(len(lines)), [f"{line.name}, {line.distance}" for line in reversed(lines)], fontsize=8)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
