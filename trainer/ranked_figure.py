"""Picture of rankings: descriptions, what they found first, and what is wrong with it (ASMR, Figures 4 to 7)."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from descry.trainer.datasets import PersonDataset
from descry.trainer.drawing import RIGHT, WRONG, even_steps, page, save
from descry.trainer.metrics import SEARCH_METRICS, query_metrics
from descry.trainer.protocols import Queries
from descry.trainer.transforms import read_image
from descry.trainer.wording import differences, in_words

HITS = 7
NOTES = 4  # lines under a hit
NOTE_WIDTH, TITLE_WIDTH = 22, 130  # characters
CROP = (160, 320)  # pixels


@dataclass(frozen=True)
class RankedRow:
    """One query of a ranked grid.

    Attributes:
        title: the description, and how well it was found.
        images: the crops, best first.
        relevant: whether each crop shows the category asked for.
        notes: of each crop, what differs from the description.
    """

    title: str
    images: Sequence[Image.Image]
    relevant: Sequence[bool]
    notes: Sequence[Sequence[str]]


def spread_queries(average_precision: Tensor, count: int) -> list[int]:
    """`count` queries at even steps of the ranking by average precision, float [Q]: the best, the worst and between.

    Where there are fewer, all of them; those without a relevant image (NaN) are left out.
    """
    defined = (~average_precision.isnan()).nonzero()[:, 0]
    order = defined[average_precision[defined].argsort(descending=True, stable=True)]
    return order[even_steps(len(order), count)].tolist()


def ranked_rows(queries: Queries, distances: Tensor, gallery: PersonDataset, count: int) -> list[RankedRow]:
    """The rows of a grid of `count` queries, see `spread_queries`.

    Args:
        queries: what was asked for.
        distances: float [Q, G] of the gallery's images.
        gallery: the images.
        count: rows.

    Raises:
        DatasetError: an image cannot be read.
    """
    relevant, ignored = queries.truth(slice(None))
    average_precision = query_metrics(distances, relevant, ignored)[:, SEARCH_METRICS.index("mAP")]
    rows = []
    for query in spread_queries(average_precision, count):
        described = queries.attributes[query].numpy()
        hits = distances[query].masked_fill(ignored[query], torch.inf).argsort(stable=True)[:HITS].tolist()
        kind = "seen" if queries.seen[query] else "not seen"
        title = (
            f"{in_words(gallery.schema, described)}\n"
            f"AP {average_precision[query]:.2f}; {int(relevant[query].sum())} in the gallery; {kind} in training"
        )
        images = [read_image(gallery.images[hit]) for hit in hits]
        notes = [differences(gallery.schema, described, gallery.attributes[hit]) for hit in hits]
        rows.append(RankedRow(title, images, relevant[query, hits].tolist(), notes))
    return rows


def draw_ranked_grid(rows: Sequence[RankedRow], path: Path) -> None:
    """One line a query, hits from left to right, framed green where right and red where wrong."""
    columns = max(len(row.images) for row in rows)
    figure = page(1.33 * columns, 3.05 * len(rows))
    panels = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for panel, row in zip(panels, rows, strict=True):
        title = "\n".join(textwrap.fill(line, TITLE_WIDTH) for line in row.title.splitlines())
        panel.suptitle(title, fontsize=9, x=0.01, ha="left")
        for position, axis in enumerate(panel.subplots(1, columns, squeeze=False)[0]):
            if position < len(row.images):
                _draw_hit(axis, row, position)
            else:
                axis.set_axis_off()
    save(figure, path)


def _draw_hit(axis: Axes, row: RankedRow, position: int) -> None:
    color = RIGHT if row.relevant[position] else WRONG
    axis.set(xticks=[], yticks=[])
    axis.imshow(row.images[position].resize(CROP))
    for spine in axis.spines.values():
        spine.set(edgecolor=color, linewidth=3)
    axis.set_xlabel(caption(position + 1, row.notes[position]), fontsize=8, color=color)


def caption(rank: int, notes: Sequence[str]) -> str:
    """The rank and what differs, always in `NOTES` lines, so that all crops are equally large."""
    lines: list[str] = []
    for number, note in enumerate(notes or ["match"]):
        wrapped = textwrap.wrap(note if lines else f"{rank}. {note}", NOTE_WIDTH)
        last = number == max(len(notes), 1) - 1
        if len(lines) + len(wrapped) > NOTES - (not last):
            lines.append(f"and {len(notes) - number} more")
            break
        lines += wrapped
    return "\n".join([*lines, *[""] * (NOTES - len(lines))])
