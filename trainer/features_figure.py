"""Picture of SAL's real image features and of those that it makes from descriptions.

All panels are one t-SNE map: categories of the training split, and categories of the other split that training did not
have. A cross is a feature that G_V made of the category's description and of noise. `near` says of how many of them, in
0..1, the nearest mean of real features is their own category's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from descry.trainer.config import ExperimentConfig
from descry.trainer.datasets import DatasetError, PersonDataset
from descry.trainer.drawing import color_of, page, save
from descry.trainer.methods import SAL
from descry.trainer.subject import Subject
from descry.trainer.transforms import CropDataset
from descry.trainer.tsne import frequent_categories, project


@dataclass(frozen=True)
class FeatureSet:
    """Real and made features of a few categories.

    Attributes:
        real, made: float [n, 512] and [m, 512], f_v of images and synthetic f_v.
        real_labels, made_labels: int64 [n] and [m], which of the categories.
    """

    real: Tensor
    real_labels: Tensor
    made: Tensor
    made_labels: Tensor

    def near(self) -> float:
        """Share of the made features, in 0..1, whose nearest mean of real features is their own category's."""
        means = torch.stack([self.real[self.real_labels == label].mean(dim=0) for label in self.real_labels.unique()])
        return (torch.cdist(self.made, means).argmin(dim=1) == self.made_labels).float().mean().item()


@torch.inference_mode()
def collect_features(
    method: SAL, persons: PersonDataset, config: ExperimentConfig, categories: Sequence[np.ndarray], seed: int = 0
) -> FeatureSet:
    """Features of the images of some categories, and as many that the method makes of their descriptions.

    Args:
        method: in evaluation mode.
        persons: the split.
        config: of the experiment.
        categories: image indices of each.
        seed: of the noise.
    """
    device = next(method.parameters()).device
    chosen = torch.from_numpy(np.concatenate(categories))
    labels = torch.cat([torch.full((len(rows),), number) for number, rows in enumerate(categories)])
    crops = CropDataset(persons, config.image, cache=config.data.cache)
    loader = DataLoader(Subset(crops, chosen.tolist()), batch_size=64)
    real = torch.cat([method.extract_visual(batch["image"].to(device)).cpu() for batch in loader])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(chosen), method.config.noise_size, generator=generator)
    descriptions = torch.from_numpy(persons.attributes[chosen.numpy()]).float()
    semantic = method.networks.attribute_extractor(descriptions.to(device))
    made = method.networks.visual_generator(torch.cat([semantic, noise.to(device)], dim=1)).cpu()
    return FeatureSet(real, labels, made, labels)


def feature_panels(method: SAL, subject: Subject, count: int) -> dict[str, FeatureSet]:
    """The `count` most frequent categories of the training split, and of those of the subject's split new to training.

    Raises:
        DatasetError: no image has all attributes known.
    """
    splits = {"seen": subject.dataset.subset("train"), "unseen": subject.persons}
    panels = {}
    for name, split in splits.items():
        categories = frequent_categories(split, count, method.categories, name == "seen")
        if categories:
            panels[f"{name} categories"] = collect_features(method, split, subject.config, categories)
    if not panels:
        raise DatasetError(f"{subject.config.data.root}: no image has all attributes known")
    return panels


def draw_features(panels: dict[str, FeatureSet], path: Path) -> None:
    """One t-SNE map of all features, a panel for each set."""
    points = project(torch.cat([part for panel in panels.values() for part in (panel.real, panel.made)]))
    figure = page(4.5 * len(panels), 4.3)
    start = 0
    for axis, (name, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        middle, end = start + len(panel.real), start + len(panel.real) + len(panel.made)
        _draw_panel(axis, points[start:middle], points[middle:end], panel)
        axis.set(title=f"{name}; near {panel.near():.2f}", xticks=[], yticks=[])
        start = end
    save(figure, path)


def _draw_panel(axis: Axes, real: np.ndarray, made: np.ndarray, panel: FeatureSet) -> None:
    colors = [[color_of(label) for label in labels.tolist()] for labels in (panel.real_labels, panel.made_labels)]
    axis.scatter(real[:, 0], real[:, 1], s=14, c=colors[0], alpha=0.8, label="real")
    axis.scatter(made[:, 0], made[:, 1], s=22, c=colors[1], marker="x", linewidths=0.9, label="made")
    axis.legend(fontsize=8)
