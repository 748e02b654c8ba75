"""Picture of how the cosines of a method, and of others, follow what descriptions share."""

from pathlib import Path

from matplotlib.axes import Axes

from descry.trainer.drawing import page, save
from descry.trainer.similarity import SimilarityCurve


def draw_similarity(curves: dict[str, tuple[SimilarityCurve, SimilarityCurve]], path: Path) -> None:
    """Mean cosine and its standard deviation by the number of differing attribute groups, one colour a method.

    Left between two descriptions, right between a description and an image; see `similarity_curves`. Grey bars are
    shares of the pairs of the first method.
    """
    figure = page(9, 3.4)
    axes = figure.subplots(1, 2, sharey=True)
    for name, pair in curves.items():
        for axis, curve in zip(axes, pair, strict=True):
            (line,) = axis.plot(curve.differing, curve.mean, marker=".", label=name)
            low, high = curve.mean - curve.deviation, curve.mean + curve.deviation
            axis.fill_between(curve.differing, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    for axis, title in zip(axes, ("two descriptions", "a description and an image"), strict=True):
        axis.set(title=title, xlabel="attribute groups that differ")
        axis.grid(alpha=0.3)
    for axis, curve in zip(axes, next(iter(curves.values())), strict=True):
        _draw_shares(axis, curve)
    axes[0].set_ylabel("cosine, mean ± standard deviation")
    axes[1].legend(fontsize=8)
    save(figure, path)


def _draw_shares(axis: Axes, curve: SimilarityCurve) -> None:
    bars = axis.twinx()
    bars.bar(curve.differing, curve.pairs, color="0.88", width=0.7)
    bars.set(yticks=[], ylim=(0, 5 * float(curve.pairs.max())))
    axis.set_zorder(bars.get_zorder() + 1)
    axis.patch.set_visible(False)
    axis.set_xticks(curve.differing.tolist())
