"""Picture of the joint space: images of the most frequent categories, and their descriptions (ASMR, Figure 8)."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.patheffects import withStroke
from torch import Tensor

from descry.trainer.datasets import DatasetError
from descry.trainer.drawing import color_of, page, save
from descry.trainer.extraction import Extracted
from descry.trainer.methods import Method
from descry.trainer.schema import AttributeSchema
from descry.trainer.tsne import frequent_categories, project
from descry.trainer.wording import in_words

NAME_WIDTH = 125  # characters


@dataclass(frozen=True)
class JointSpace:
    """Embeddings of a few categories.

    Attributes:
        images: float [n, D].
        labels: int64 [n], which of the C categories each image has.
        descriptions: float [C, D].
        names: of the categories, in words.
    """

    images: Tensor
    labels: Tensor
    descriptions: Tensor
    names: Sequence[str]


@torch.inference_mode()
def joint_space(method: Method, gallery: Extracted, count: int) -> JointSpace:
    """The `count` most frequent categories of a gallery.

    Raises:
        DatasetError: too few images have all attributes known.
    """
    categories = frequent_categories(gallery.crops, count)
    labels = torch.cat([torch.full((len(rows),), number) for number, rows in enumerate(categories)] or [torch.empty(0)])
    if len(labels) < 3:
        raise DatasetError(f"{gallery.crops.name}: a map needs 3 images with all attributes known, not {len(labels)}")
    described = gallery.crops.attributes[[rows[0] for rows in categories]]
    stated = torch.from_numpy(described).float().to(next(method.parameters()).device)
    encoded = method.encode_attributes(stated, torch.ones_like(stated)).cpu()
    images = gallery.embeddings[torch.from_numpy(np.concatenate(categories))]
    return JointSpace(images, labels, encoded, distinguishing_words(method.schema, described))


def distinguishing_words(schema: AttributeSchema, described: np.ndarray) -> list[str]:
    """Each of descriptions uint8 [C, N] in words, without the groups in which all of them agree."""
    differing = [group.name for group, where in schema if (described[:, where] != described[0, where]).any()]
    return [in_words(schema, row, differing) for row in described]


def draw_joint_space(space: JointSpace, path: Path) -> None:
    """One t-SNE map: points are images, a numbered star is their category's description.

    In a space that is well aligned a star lies among the points of its colour.
    """
    points = project(torch.cat([space.images, space.descriptions]))
    images, stars = points[: len(space.images)], points[len(space.images) :]
    labels = [
        textwrap.fill(f"{number}: {name}", NAME_WIDTH, subsequent_indent="    ")
        for number, name in enumerate(space.names, start=1)
    ]
    figure = page(9, 6.2 + 0.18 * "\n".join(labels).count("\n"))
    axis = figure.subplots()
    for number, label in enumerate(labels):
        own, color = images[space.labels.numpy() == number], color_of(number)
        axis.scatter(own[:, 0], own[:, 1], s=20, color=color, alpha=0.7, linewidths=0, label=label)
    for number, star in enumerate(stars):
        axis.scatter([star[0]], [star[1]], s=420, color=color_of(number), marker="*", edgecolors="black", zorder=3)
        axis.annotate(
            str(number + 1), star, color="white", weight="bold", ha="center", va="center", zorder=3,
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )  # fmt: skip
    axis.set(title="points: images; stars: descriptions", xticks=[], yticks=[])
    figure.legend(loc="outside lower left", fontsize=8, frameon=False, markerscale=1.5)
    save(figure, path)
