"""Pixels: decode, resize and augment a crop with torchvision's transforms v2, and the torch dataset over them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from descry.trainer.cache import PixelCache
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


class Augmentation:
    """The random changes of all crops in one epoch; what befalls a crop is a function of (seed, epoch, index) alone.

    Everything is drawn at once: seeding a generator for each crop costs more than flipping it.
    """

    def __init__(self, config: ImageConfig, seed: int, epoch: int, count: int) -> None:
        """Draw for `count` crops; a larger count changes nothing of the first ones."""
        self.config = config
        streams = np.random.SeedSequence((seed, epoch)).spawn(4)
        flip, crop, jitter, erase = (np.random.default_rng(stream) for stream in streams)
        self.flips = flip.random(count) < config.flip
        self.corners = _draw_corners(crop, count, config.padding) if config.padding else None
        self.jitter = _draw_jitter(jitter, count, config.color_jitter) if config.color_jitter else None
        self.boxes = _draw_boxes(erase, count, config) if config.erase else None

    def __call__(self, image: Tensor, index: int) -> Tensor:
        """The changed crop, uint8 [3, H, W] like `image`."""
        if self.flips[index]:
            image = F.horizontal_flip(image)
        if self.corners is not None:
            # What lies outside of the image is zero.
            image = F.crop(image, *self.corners[index].tolist(), self.config.height, self.config.width)
        if self.jitter is not None:
            factors, order = self.jitter
            for step in order[index]:
                image = JITTER[step](image, float(factors[index, step]))
        if self.boxes is not None and self.boxes[index].any():
            image = F.erase(image, *self.boxes[index].tolist(), torch.zeros(1, dtype=torch.uint8))
        return image


JITTER = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)


def _draw_corners(generator: np.random.Generator, count: int, padding: int) -> np.ndarray:
    """Top and left, int [n, 2] in -padding..padding."""
    return np.floor(generator.random((count, 2)) * (2 * padding + 1)).astype(int) - padding


def _draw_jitter(generator: np.random.Generator, count: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Factors of `JITTER`, [n, 3], and the order of its steps, int [n, 3]."""
    draws = generator.random((count, 6))
    lowest, highest = max(0.0, 1 - strength), 1 + strength
    return lowest + (highest - lowest) * draws[:, :3], draws[:, 3:].argsort(axis=1)


def _draw_boxes(generator: np.random.Generator, count: int, config: ImageConfig) -> np.ndarray:
    """Top, left, height and width to erase, int [n, 4]; zeros where nothing is erased.

    As Zhong et al., Random Erasing (AAAI 2020), and torchvision's RandomErasing draw it: 2 to 33 % of the image, sides
    of 0.3 to 3.3, the first of ten attempts that fits.
    """
    attempts = 10
    draws = generator.random((count, 3 + 2 * attempts))
    area = config.height * config.width * (0.02 + (0.33 - 0.02) * draws[:, 3 : 3 + attempts])
    aspect = np.exp(np.log(0.3) + np.log(3.3 / 0.3) * draws[:, 3 + attempts :])
    heights, widths = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (heights < config.height) & (widths < config.width)
    first = np.arange(count), fits.argmax(axis=1)
    height, width = heights[first], widths[first]
    top = np.floor(draws[:, 1] * (config.height - height + 1))
    left = np.floor(draws[:, 2] * (config.width - width + 1))
    erased = (draws[:, 0] < config.erase) & fits.any(axis=1)
    return (np.stack([top, left, height, width], axis=1) * erased[:, None]).astype(int)


class CropDataset(Dataset[dict[str, Any]]):
    """Crops with labels; with augmentation, a crop is a function of (seed, epoch, index) alone.

    So neither the number of workers or processes nor an interruption changes what the network sees.
    """

    def __init__(self, persons: PersonDataset, config: ImageConfig, seed: int | None = None, cache: str = "") -> None:
        """Wrap `persons`; without a seed nothing is augmented, without a `cache` folder every epoch decodes.

        Raises:
            DatasetError: the cache folder cannot be used, or an image that it would hold is missing.
        """
        self.persons, self.config, self.seed = persons, config, seed
        self.resize = resize(config)
        self.cache = None
        if cache:
            versions = f"Pillow {PIL.__version__}, torchvision {torchvision.__version__}"
            size = config.height, config.width
            self.cache = PixelCache(Path(cache), persons.images, *size, f"{self.resize}, {versions}")
        self.set_epoch(0)

    def __len__(self) -> int:
        """Number of crops."""
        return len(self.persons)

    def is_cheap(self) -> bool:
        """Whether a crop costs less to read than to hand over between processes: cached, and no colour to change."""
        return (
            self.cache is not None and self.cache.is_full() and not (self.seed is not None and self.config.color_jitter)
        )

    def set_epoch(self, epoch: int) -> None:
        """Draw the augmentation of an epoch."""
        self.augment = None if self.seed is None else Augmentation(self.config, self.seed, epoch, len(self))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`image` uint8 [3, H, W], `attributes` uint8 [N] (255 = unknown), `person`, `index`."""
        image = self._resized(index)
        return {
            "image": self.augment(image, index) if self.augment else image,
            "attributes": torch.from_numpy(self.persons.attributes[index]),
            "person": int(self.persons.persons[index]),
            "index": index,
        }

    def _resized(self, index: int) -> Tensor:
        image = self.cache.read(index) if self.cache else None
        if image is None:
            image = self.resize(read_image(self.persons.images[index]))
            if self.cache:
                self.cache.write(index, image)
        return image
