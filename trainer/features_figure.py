"""Picture of SAL's real image features and of those that it makes from descriptions.

    python -m descry.trainer.features_figure CHECKPOINT --figure PNG [--split test] [--categories 8] [--data.root=DIR]

Both panels are one t-SNE map (van der Maaten, Hinton, 2008): categories of the training split, and categories of the
other split that training did not have. A cross is a feature that G_V made of the category's description and of noise.
`near` says of how many of them, in 0..1, the nearest mean of real features is their own category's.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from accelerate import Accelerator
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import DataLoader

from descry.trainer.checkpoint import CheckpointError
from descry.trainer.config import ConfigError, ExperimentConfig
from descry.trainer.datasets import DatasetError, PersonDataset
from descry.trainer.labels import match_rows
from descry.trainer.losses import IGNORE
from descry.trainer.methods import SAL
from descry.trainer.schema import UNKNOWN
from descry.trainer.subject import add_subject_flags, load_subject
from descry.trainer.transforms import CropDataset

matplotlib.use("Agg")

IMAGES = 40  # of a category at most; as many features are made


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


def frequent_categories(persons: PersonDataset, training: Tensor, seen: bool, count: int) -> list[np.ndarray]:
    """Image indices of the `count` most frequent categories that are in `training` uint8 [C, N], or that are not."""
    complete = np.flatnonzero((persons.attributes != UNKNOWN).all(axis=1))
    rows, labels = np.unique(persons.attributes[complete], axis=0, return_inverse=True)
    known = (match_rows(torch.from_numpy(rows), training.cpu()) != IGNORE).numpy()
    sizes = np.bincount(labels.ravel(), minlength=len(rows)) * (known == seen)
    order = np.argsort(-sizes, kind="stable")[:count]
    return [complete[labels.ravel() == label][:IMAGES] for label in order if sizes[label]]


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
    loader = DataLoader(torch.utils.data.Subset(crops, chosen.tolist()), batch_size=64)
    real = torch.cat([method.extract_visual(batch["image"].to(device)).cpu() for batch in loader])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(chosen), method.config.noise_size, generator=generator)
    descriptions = torch.from_numpy(persons.attributes[chosen.numpy()]).float()
    semantic = method.networks.attribute_extractor(descriptions.to(device))
    made = method.networks.visual_generator(torch.cat([semantic, noise.to(device)], dim=1)).cpu()
    return FeatureSet(real, labels, made, labels)


def project(features: Tensor) -> np.ndarray:
    """The t-SNE map [n, 2] of features float [n, F], n > 3; the same in every run."""
    from sklearn.manifold import TSNE  # takes seconds to import, and nothing else needs it

    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features.numpy())


def draw_features(panels: dict[str, FeatureSet], path: Path) -> None:
    """One t-SNE map of all features, a panel for each set."""
    points = project(torch.cat([part for panel in panels.values() for part in (panel.real, panel.made)]))
    figure = Figure(figsize=(6 * len(panels), 5.2), facecolor="white", layout="constrained")
    start = 0
    for axis, (name, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        middle, end = start + len(panel.real), start + len(panel.real) + len(panel.made)
        _draw_panel(axis, points[start:middle], points[middle:end], panel)
        axis.set(title=f"{name}; near {panel.near():.2f}", xticks=[], yticks=[])
        start = end
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_panel(axis: Axes, real: np.ndarray, made: np.ndarray, panel: FeatureSet) -> None:
    colors = matplotlib.colormaps["tab10"]
    axis.scatter(real[:, 0], real[:, 1], s=14, c=colors(panel.real_labels.numpy() % 10), alpha=0.8, label="real")
    axis.scatter(
        made[:, 0], made[:, 1], s=22, c=colors(panel.made_labels.numpy() % 10), marker="x", linewidths=0.9, label="made"
    )
    axis.legend(fontsize=8)


def write_figure(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Draw what the command line asks for, and print `near` of each panel.

    Raises:
        CheckpointError: the checkpoint cannot be used, or makes no features.
        DatasetError: the dataset cannot be used, or has no complete description of either kind.
    """
    subject = load_subject(options.checkpoint, options.split, overrides, options.cache)
    config, method = subject.config, subject.checkpoint.method
    if not isinstance(method, SAL):
        raise CheckpointError(f"{options.checkpoint} makes no features: this figure is for method sal")
    method = method.to(Accelerator(cpu=config.train.device == "cpu").device)
    splits = {"seen": subject.dataset.subset("train"), "unseen": subject.persons}
    panels = {}
    for name, split in splits.items():
        categories = frequent_categories(split, method.categories, name == "seen", options.categories)
        if categories:
            panels[f"{name} categories"] = collect_features(method, split, config, categories)
    if not panels:
        raise DatasetError(f"{config.data.root}: no image of {options.split} has all attributes known")
    draw_features(panels, options.figure)
    for name, panel in panels.items():
        print(f"{name}: {len(panel.real)} images, near {panel.near():.3f}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    parser = argparse.ArgumentParser(
        description="Draw real and made image features of SAL.", epilog="--section.key=value as in training"
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--figure", type=Path, required=True, metavar="PNG")
    add_subject_flags(parser, ("val", "test"), features=False)
    parser.add_argument("--categories", type=int, default=8, help="a panel; the most frequent ones")
    options, overrides = parser.parse_known_args(arguments)
    try:
        write_figure(options, overrides)
    except (CheckpointError, ConfigError, DatasetError) as error:
        print(f"features_figure: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
