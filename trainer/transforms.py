"""Pixels: decode, resize and augment a crop with torchvision's transforms v2, and the torch dataset over them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from descry.trainer.datasets.persons import DatasetError, PersonDataset


@dataclass(frozen=True)
class ImageConfig:
    """Size and augmentation of the crops.

    Attributes:
        height, width: pixels after a bicubic resize that ignores the aspect ratio.
        flip: probability of a horizontal flip.
        padding: pixels of zero padding around the crop before a random crop back to size; 0 = off.
        color_jitter: strength of brightness, contrast and saturation jitter; 0 = off.
        erase: probability of random erasing; 0 = off.
    """

    height: int = 256
    width: int = 128
    flip: float = 0.5
    padding: int = 0
    color_jitter: float = 0.0
    erase: float = 0.0


def read_image(path: Path) -> Image.Image:
    """Decode an image file to RGB, upright.

    Raises:
        DatasetError: the file is missing, no image, or truncated.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(
            f"cannot decode {path}: {error}; replace the file or take its row out of the labels"
        ) from error


def resize(config: ImageConfig) -> v2.Transform:
    """The part of the preprocessing that the server repeats: PIL image to uint8 [3, H, W], bicubic."""
    size = [config.height, config.width]
    return v2.Compose([v2.Resize(size, interpolation=InterpolationMode.BICUBIC), v2.PILToTensor()])


def augment(config: ImageConfig) -> v2.Transform:
    """Random transforms of a uint8 [3, H, W] crop, those that `config` switches on."""
    steps: list[v2.Transform] = [v2.RandomHorizontalFlip(config.flip)]
    if config.padding:
        steps.append(v2.RandomCrop((config.height, config.width), padding=config.padding))
    if config.color_jitter:
        steps.append(v2.ColorJitter(*3 * (config.color_jitter,)))
    if config.erase:
        steps.append(v2.RandomErasing(config.erase))
    return v2.Compose(steps)


class CropDataset(Dataset[dict[str, Any]]):
    """Crops with labels; with augmentation, a crop is a function of (seed, epoch, index) alone.

    So neither the number of workers or processes nor an interruption changes what the network sees.
    """

    def __init__(self, persons: PersonDataset, config: ImageConfig, seed: int | None = None) -> None:
        """Wrap `persons`; without a seed nothing is augmented."""
        self.persons, self.seed, self.epoch = persons, seed, 0
        self.resize, self.augment = resize(config), augment(config)

    def __len__(self) -> int:
        """Number of crops."""
        return len(self.persons)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation is drawn."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`image` uint8 [3, H, W], `attributes` uint8 [N] (255 = unknown), `person`, `index`."""
        image = self.resize(read_image(self.persons.images[index]))
        if self.seed is not None:
            image = self._augmented(image, self.seed, index)
        return {
            "image": image,
            "attributes": torch.from_numpy(self.persons.attributes[index]),
            "person": int(self.persons.persons[index]),
            "index": index,
        }

    def _augmented(self, image: Tensor, seed: int, index: int) -> Tensor:
        state = np.random.SeedSequence((seed, self.epoch, index)).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(state[0] >> np.uint64(1)))
            return self.augment(image)
