"""Picture of a calibration: reliability diagrams of attributes and of matches, and the errors of "no match"."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from scipy.special import ndtr, ndtri

from descry.trainer.calibration import BINS, Reliability
from descry.trainer.drawing import page, save
from descry.trainer.match_metrics import OperatingCurve

LineStyle = Literal["-", "--", ":"]
# Line styles and markers of the curves of a panel, in their order: they must differ without colours, too.
STYLES: tuple[tuple[LineStyle, str], ...] = (("-", "o"), ("--", "s"), (":", "^"))
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99)
EDGE = 0.005  # rates below it, and above 1 less it, are drawn there


def draw_calibration(result: dict[str, Any], path: Path) -> None:
    """Draw what `calibrate` measured: two reliability diagrams with counts, and the detection error trade-off."""
    figure = page(12, 5.2)
    layout: list[Any] = [["attributes", "matches", "errors"], ["attribute counts", "match counts", "errors"]]
    axes = figure.subplot_mosaic(layout, height_ratios=[3, 1])
    attributes, match = result["attributes"], result["match"]
    _draw_reliability(
        axes["attributes"],
        axes["attribute counts"],
        {f"{form}, mean ECE {_percent(attributes['error'][form])}": c for form, c in attributes["pooled"].items()},
    )
    _draw_reliability(
        axes["matches"],
        axes["match counts"],
        {f"{name}, ECE {_percent(curve.error)}": curve for name, curve in match["reliability"].items()},
    )
    _draw_errors(axes["errors"], match["curves"], match["test"]["all"])
    axes["attributes"].set(ylabel="share of positives")
    axes["matches"].set(ylabel="share of matches")
    axes["attribute counts"].set(xlabel="score", ylabel="labels")
    axes["match counts"].set(xlabel="match probability", ylabel="searches")
    for name, title in {"attributes": "attributes", "matches": "top hit", "errors": '"no match"'}.items():
        axes[name].legend(
            title=title, alignment="left", fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1)
        )
    save(figure, path)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _draw_reliability(axis: Axes, counts: Axes, curves: Mapping[str, Reliability]) -> None:
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    for (label, curve), (style, marker) in zip(curves.items(), STYLES, strict=False):
        shown = curve.counts > 0
        places = curve.scores[shown], curve.positives[shown]
        axis.plot(*places, linestyle=style, marker=marker, markersize=4, label=label)
        counts.stairs(curve.counts, np.linspace(0, 1, BINS + 1), linestyle=style)
    axis.set(xlim=(0, 1), ylim=(0, 1))
    counts.set(xlim=(0, 1), yscale="log")
    for each in (axis, counts):
        each.grid(alpha=0.3)


def _draw_errors(axis: Axes, curves: Mapping[str, OperatingCurve], chosen: Mapping[str, float]) -> None:
    """On normal-deviate scales, where normally distributed scores make a straight line (Martin et al., 1997)."""
    for (name, curve), (style, _) in zip(curves.items(), STYLES, strict=False):
        label = f"{name}, equal error {_percent(curve.equal_error_rate)}"
        axis.plot(_inside(curve.false_alarms), _inside(curve.misses), linestyle=style, label=label)
    point = _inside(np.array([chosen["false_alarms"], chosen["misses"]]))
    axis.plot(*point[:, None], "k*", markersize=11, linestyle="none", label="threshold, all descriptions")
    for scale, ticks in ((axis.set_xscale, axis.set_xticks), (axis.set_yscale, axis.set_yticks)):
        scale("function", functions=(ndtri, ndtr))
        ticks(TICKS, [f"{100 * rate:g}" for rate in TICKS])
    axis.set(xlim=(EDGE, 1 - EDGE), ylim=(EDGE, 1 - EDGE))
    axis.set(xlabel="false alarms, % of searches for the absent", ylabel="misses, % of searches for the present")
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)


def _inside(rates: np.ndarray) -> np.ndarray:
    return np.clip(rates, EDGE, 1 - EDGE)
