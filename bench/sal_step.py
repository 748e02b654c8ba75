"""Iterations of SAL's stage `symbiosis`, five updates each: images/s and peak memory in one run.

    python bench/sal_step.py [--backbone mobilenetv2_100] [--height 128 --width 64] [--batch 128] [--steps 8]

Every row is a process of its own, because how memory is kept is a setting of the process. PETA's size: 1 890 categories
of 105 attributes. The first row is the same modules written plainly: losses and new descriptions row by row in Python.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from apart import measure_apart, read_options
from torch import Tensor

from descry.trainer.backbones import Backbone, BackboneConfig
from descry.trainer.combinations import UnseenCombinations
from descry.trainer.config import StageConfig
from descry.trainer.datasets.peta_attributes import SCHEMAS
from descry.trainer.labels import TrainingLabels
from descry.trainer.machine import keep_memory
from descry.trainer.methods import SAL, sal_updates
from descry.trainer.optimizers import build_optimizers

SCHEMA = SCHEMAS["peta"][0]
CATEGORIES = 1890
FORMS = {
    "float32, contiguous, Python loops": {"contiguous": True, "loops": True},
    "float32, contiguous": {"contiguous": True},
    "float32, channels last": {},
    "float32, as trained": {"keep": True},
    "bfloat16, as trained": {"keep": True, "bfloat16": True},
}


def looped(loss: Callable[..., Tensor], sides: int) -> Callable[..., Tensor]:
    """`loss`, a mean over rows of its first `sides` arguments, computed one row at a time."""

    def plain(*rows: Tensor, **options: object) -> Tensor:
        pairs, rest = zip(*(side.split(1) for side in rows[:sides]), strict=True), rows[sides:]
        return torch.stack([loss(*pair, *rest, **options) for pair in pairs]).mean()

    return plain


def use_loops() -> None:
    """Replace the losses and the drawing of new descriptions by loops over rows."""
    for name, sides in (("category_loss", 2), ("attribute_loss", 2), ("adversarial_loss", 1), ("generator_loss", 1),
                        ("row_distance", 2)):  # fmt: skip
        setattr(sal_updates, name, looped(getattr(sal_updates, name), sides))
    draw = UnseenCombinations.draw

    def draw_plainly(self: UnseenCombinations, count: int, generator: torch.Generator) -> Tensor:
        return torch.cat([draw(self, 1, generator) for _ in range(count)])

    UnseenCombinations.draw = draw_plainly  # type: ignore[method-assign]


def use_contiguous_pixels(backbone: Backbone) -> None:
    """Compute in PyTorch's default layout: weights, and pixels, whose layout the convolutions follow otherwise."""
    network = backbone.network.to(memory_format=torch.contiguous_format)
    backbone.forward = lambda images: network.forward_features(  # type: ignore[method-assign]
        ((images.float() - backbone.mean) / backbone.std).contiguous()
    )


def measure(options: argparse.Namespace, form: dict[str, bool]) -> tuple[float, float]:
    """The median of `options.steps` iterations after two warm-up ones, in seconds, and the peak memory in MB."""
    if form.get("keep"):
        keep_memory()
    if form.get("loops"):
        use_loops()
    torch.manual_seed(0)
    rows = (np.random.default_rng(0).random((CATEGORIES, SCHEMA.size)) < 0.15).astype(np.uint8)
    method = SAL(SAL.Config(BackboneConfig(options.backbone, 2)), SCHEMA, TrainingLabels.of(rows, SCHEMA))
    method.begin_stage("symbiosis")
    method.train()
    if form.get("contiguous"):
        use_contiguous_pixels(method.backbone)
    stage = StageConfig("symbiosis", 1, optimizer="adam", learning_rate=1e-4)
    optimizers = build_optimizers(method, stage)
    images = torch.randint(0, 256, (options.batch, 3, options.height, options.width), dtype=torch.uint8)
    seconds = []
    for step in range(options.steps + 2):
        batch = {"image": images, "attributes": torch.from_numpy(rows[: options.batch])}
        started = time.perf_counter()
        for update, optimizer in optimizers.items():
            with method.updating(update):
                with torch.autocast("cpu", torch.bfloat16, enabled=form.get("bfloat16", False)):
                    losses = method({**batch, "update": update, "seed": step})
                losses["loss"].backward()
                optimizer.step()
                optimizer.zero_grad()
            batch.update(losses["carried"])
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[2:])), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    options = read_options(__doc__.splitlines()[0], measure)
    first = 0.0
    for name, form in FORMS.items():
        seconds, megabytes = measure_apart(form)
        first = first or seconds
        print(
            f"{name:<36}{options.batch / seconds:>8.0f} images/s{first / seconds:>7.2f}{megabytes:>8.0f} MB", flush=True
        )


if __name__ == "__main__":
    main()
