"""Picture of where the attribute tokens of a Multi-task Transformer look."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from torch import Tensor

from descry.trainer.drawing import RIGHT, WRONG, even_steps, page, save
from descry.trainer.methods import MultiTask
from descry.trainer.schema import UNKNOWN, SchemaError
from descry.trainer.transforms import CropDataset

DIVERGING = "RdYlBu_r"
ATTRIBUTES = 7  # columns, where none are named


@dataclass(frozen=True)
class AttentionRow:
    """One photo of an attention figure.

    Attributes:
        photo: uint8 [3, H, W].
        maps: float [A, h, w], share of each attribute token's attention on each patch of the photo.
        scores: float [A] in 0..1.
        labels: uint8 [A]; 255 = unknown.
    """

    photo: Tensor
    maps: Tensor
    scores: Tensor
    labels: Tensor


@torch.inference_mode()
def attention_rows(
    method: MultiTask, crops: CropDataset, count: int, elements: Sequence[str] = (), block: int = 0
) -> tuple[list[AttentionRow], list[str]]:
    """Rows of an attention figure of `count` crops, evenly spaced, and the names of its columns.

    Args:
        method: in evaluation mode.
        crops: not augmented.
        count: photos.
        elements: attributes as `group=value`; empty = the rarest that the photos have.
        block: of the transformer, from 0.

    Raises:
        SchemaError: no such attribute.
        ValueError: no such block.
    """
    chosen = [crops[index] for index in even_steps(len(crops), count)]
    images, labels = (torch.stack([crop[key] for crop in chosen]) for key in ("image", "attributes"))
    names = method.schema.elements
    for name in elements:
        if name not in names:
            raise SchemaError(f"{name!r} is no attribute of {method.schema.name}; valid: {', '.join(names)}")
    frequency = (crops.persons.attributes == 1).mean(axis=0)
    shown = [names.index(name) for name in elements] or sorted(
        np.flatnonzero((labels == 1).any(dim=0).numpy()), key=lambda index: frequency[index]
    )[:ATTRIBUTES]
    device = next(method.parameters()).device
    maps = method.attribute_attention(images.to(device), block)[:, shown].cpu()
    scores = method.attribute_scores(method.encode_image(images.to(device))[1])[:, shown].cpu()
    rows = [AttentionRow(*values) for values in zip(images, maps, scores, labels[:, shown], strict=True)]
    return rows, [names[index] for index in shown]


def draw_attention(rows: Sequence[AttentionRow], attributes: Sequence[str], path: Path) -> None:
    """One line a photo, one column an attribute: its token's attention over the photo, its score, right or wrong.

    The maps are upsampled bilinearly and coloured against an even spread over the photo on one fixed scale, so that
    attention that tells nothing looks pale, and figures can be compared.
    """
    columns = len(attributes) + 1
    figure = page(columns + 1.1, 2.25 * len(rows) + 0.3)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    scale = LogNorm(1 / 3, 3)
    for row, line in zip(rows, axes, strict=True):
        photo = row.photo.permute(1, 2, 0).numpy()
        size = photo.shape[:2]
        line[0].imshow(photo)
        line[0].set_xlabel("score, label", fontsize=8)
        for axis in line:
            axis.set(xticks=[], yticks=[], frame_on=False)
        maps = row.maps / row.maps.mean(dim=(1, 2), keepdim=True)
        enlarged = F.interpolate(maps[None].float(), size=size, mode="bilinear", align_corners=False)[0]
        for axis, values, score, label in zip(line[1:], enlarged, row.scores, row.labels, strict=True):
            axis.imshow(photo.mean(axis=2), cmap="gray")
            axis.imshow(values.numpy(), cmap=DIVERGING, norm=scale, alpha=0.5)
            _name_score(axis, float(score), int(label))
    for axis, name in zip(axes[0][1:], attributes, strict=True):
        axis.set_title(textwrap.fill(name.replace("=yes", "").replace("=", " ").replace("_", " "), 12), fontsize=8)
    colors = ScalarMappable(scale, DIVERGING)
    bar = figure.colorbar(
        colors, ax=axes, shrink=0.6, aspect=30, extend="both", label="attention, times an even spread"
    )
    bar.set_ticks([1 / 3, 1 / 2, 1, 2, 3], labels=["1/3", "1/2", "1", "2", "3"])
    bar.ax.minorticks_off()
    save(figure, path)


def _name_score(axis: Axes, score: float, label: int) -> None:
    known = label != UNKNOWN
    right = known and (score > 0.5) == bool(label)
    text = "unknown" if not known else "yes" if label else "no"
    axis.set_xlabel(f"{score:.2f}, {text}", fontsize=8, color="black" if not known else RIGHT if right else WRONG)
