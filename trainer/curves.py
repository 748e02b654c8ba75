"""Curves of how well searches work as descriptions get worse: their points, a table of them, and a picture."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from descry.trainer.drawing import color_of, page, save

DISTANCES = {"embedding": "embedding", "par": "PAR", "fused": "fused"}
METRICS = {"mAP": "mAP, %", "rank1": "rank-1, %"}
MARKERS = "os^Dv"  # of checkpoints, so that they can be told apart without colours
LineStyle = Literal["-", "--", ":"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """What descriptions of one kind find.

    Attributes:
        distance: a key of `DISTANCES`.
        mAP, rank1: in 0..1, over all descriptions, the mean over the draws; `mAP` by the rectangle rule.
        mAP_deviation, rank1_deviation: standard deviation over the draws; 0 for one draw.
    """

    distance: str
    mAP: float
    mAP_deviation: float
    rank1: float
    rank1_deviation: float


@dataclass(frozen=True)
class Curves:
    """What a checkpoint makes of descriptions.

    Attributes:
        checkpoint: its folder.
        method: its name.
        split: of the gallery.
        descriptions: how many there are.
        draws: how many times something was drawn for each.
        seed: of the draws.
        points: of all kinds of descriptions and distances.
    """

    checkpoint: str
    method: str
    split: str
    descriptions: int
    draws: int
    seed: int
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Chart:
    """How points of a kind are laid out. Names are those of their fields.

    Attributes:
        rows: fields that tell the lines of a table apart, and their headings.
        x: field of the horizontal axis, and its name there.
        panel: field that tells the columns of a picture apart; its values and their titles.
        line: field that tells the lines of a panel apart; its values, their names and styles.
    """

    rows: Mapping[str, str]
    x: tuple[str, str]
    panel: tuple[str, Mapping[Any, str]]
    line: tuple[str, Mapping[Any, tuple[str, LineStyle]]]

    def showing(self, distances: Collection[str]) -> "Chart":
        """The same with these distances alone in a picture."""

        def kept(field: str, values: Mapping[Any, Any]) -> tuple[str, dict[Any, Any]]:
            return field, {key: value for key, value in values.items() if field != "distance" or key in distances}

        return replace(self, panel=kept(*self.panel), line=kept(*self.line))


def spread(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The metrics of a `Point` over draws, each as of `mean_metrics`."""
    values = {name: [metrics[name] for metrics in measured] for name in METRICS}
    means = {name: mean(drawn) for name, drawn in values.items()}
    return means | {f"{name}_deviation": stdev(drawn) if len(drawn) > 1 else 0.0 for name, drawn in values.items()}


def format_curves(curves: Curves, chart: Chart) -> str:
    """The points of a checkpoint as aligned text, in percent: one column a distance."""
    lines: dict[tuple[Any, ...], dict[str, Point]] = {}
    for point in curves.points:
        lines.setdefault(tuple(getattr(point, name) for name in chart.rows), {})[point.distance] = point
    header = "".join(f"{heading:>12}" for heading in chart.rows.values())
    return "\n".join(
        [
            f"{curves.checkpoint} ({curves.method}): {curves.descriptions} descriptions, {curves.draws} draws; "
            "mAP / rank-1, mean ± standard deviation over the draws",
            header + "".join(f"{distance:>26}" for distance in DISTANCES),
            *(
                "".join(f"{value:>12}" for value in key)
                + "".join(f"{_format_point(points[distance]):>26}" for distance in DISTANCES)
                for key, points in lines.items()
            ),
        ]
    )


def _format_point(point: Point) -> str:
    pairs = ((point.mAP, point.mAP_deviation), (point.rank1, point.rank1_deviation))
    return " / ".join(f"{100 * center:.1f} ± {100 * deviation:.1f}" for center, deviation in pairs)


def draw_curves(results: Sequence[Curves], chart: Chart, path: Path, names: Sequence[str] = ()) -> None:
    """Draw mAP and rank-1 with their deviation: a colour and marker for each checkpoint, a style for each line.

    `names` are those of the checkpoints in the legend; none = their methods, with the folder where two have the same.
    """
    (field, titles), (_, styles) = chart.panel, chart.line
    figure = page(9, 6.4)
    axes = figure.subplots(len(METRICS), len(titles), sharex=True, sharey="row", squeeze=False)
    names = names or _names(results)
    handles = [Line2D([], [], color="black", linestyle=style, label=label) for label, style in styles.values()]
    for number, (result, label) in enumerate(zip(results, names, strict=True)):
        marker = MARKERS[number % len(MARKERS)]
        handles.append(Line2D([], [], color=color_of(number), marker=marker, markersize=4, label=label))
        for metric, line in zip(METRICS, axes, strict=True):
            for value, axis in zip(titles, line, strict=True):
                points = [point for point in result.points if getattr(point, field) == value]
                _draw_lines(axis, points, chart, metric, number)
    for line, label in zip(axes, METRICS.values(), strict=True):
        line[0].set_ylabel(label)
    for axis, title in zip(axes[0], titles.values(), strict=True):
        axis.set_title(title, fontsize=11)
    for axis in axes[-1]:
        axis.set_xlabel(chart.x[1])
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    save(figure, path)


def _names(results: Sequence[Curves]) -> list[str]:
    methods = [result.method for result in results]
    return [
        result.method if methods.count(result.method) == 1 else f"{result.method}, {Path(result.checkpoint).name}"
        for result in results
    ]


def _draw_lines(axis: Axes, points: Sequence[Point], chart: Chart, metric: str, number: int) -> None:
    field, styles = chart.line
    for value, (_, style) in styles.items():
        chosen = [point for point in points if getattr(point, field) == value]
        places = [getattr(point, chart.x[0]) for point in chosen]
        center = torch.tensor([100 * getattr(point, metric) for point in chosen])
        deviation = torch.tensor([100 * getattr(point, f"{metric}_deviation") for point in chosen])
        color, marker = color_of(number), MARKERS[number % len(MARKERS)]
        axis.plot(places, center, color=color, linestyle=style, marker=marker, markersize=4)
        axis.fill_between(places, center - deviation, center + deviation, color=color, alpha=0.15, linewidth=0)
        axis.set_xticks(places)
    axis.grid(alpha=0.3)
