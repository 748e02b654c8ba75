"""Training steps of ASMR's last stage, images/s in one run, and the memory of its regulariser.

    python bench/training.py [--backbone mobilenetv2_100] [--height 128 --width 64] [--batch 128] [--steps 8]

Every row is a process of its own, because how memory is kept is a setting of the process. PETA's size: 1 890 categories
of 105 attributes in 17 groups.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from apart import measure_apart, read_options

from descry.trainer.backbones import BackboneConfig
from descry.trainer.datasets.peta_attributes import SCHEMAS
from descry.trainer.labels import TrainingLabels
from descry.trainer.losses import adaptive_semantic_margin, group_hamming
from descry.trainer.machine import keep_memory
from descry.trainer.methods import ASMR

SCHEMA = SCHEMAS["peta"][0]
CATEGORIES = 1890
FORMS = {
    "float32, contiguous, glibc's defaults": {"bfloat16": False, "contiguous": True, "keep": False},
    "float32, glibc's defaults": {"bfloat16": False, "contiguous": False, "keep": False},
    "bfloat16, glibc's defaults": {"bfloat16": True, "contiguous": False, "keep": False},
    "float32, as trained": {"bfloat16": False, "contiguous": False, "keep": True},
    "bfloat16, as trained": {"bfloat16": True, "contiguous": False, "keep": True},
}


def distinct_rows() -> np.ndarray:
    """`CATEGORIES` random attribute vectors with one value a group."""
    generator = np.random.default_rng(0)
    rows = np.zeros((CATEGORIES, SCHEMA.size), dtype=np.uint8)
    for _, where in SCHEMA:
        rows[np.arange(CATEGORIES), generator.integers(where.start, where.stop, CATEGORIES)] = 1
    assert len(np.unique(rows, axis=0)) == CATEGORIES
    return rows


def build_step(options: argparse.Namespace, form: dict[str, float]) -> Callable[[], float]:
    """A function that makes one training step and returns its seconds."""
    torch.manual_seed(0)
    rows = distinct_rows()
    config = ASMR.Config(BackboneConfig(options.backbone), weight=form.get("weight", 0.0), temperature=8.5)
    method = ASMR(config, SCHEMA, TrainingLabels.of(rows, SCHEMA))
    method.begin_stage("align")
    method.train()
    if form["contiguous"]:
        method.backbone.network.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(method.parameters(), 1e-3, momentum=0.9, nesterov=True)
    images = torch.randint(0, 256, (options.batch, 3, options.height, options.width), dtype=torch.uint8)
    batch = {"image": images, "attributes": torch.from_numpy(rows[: options.batch])}

    def step() -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(form["bfloat16"])):
            loss = method(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started

    return step


def seconds_per_step(options: argparse.Namespace, form: dict[str, float]) -> float:
    """The median of `options.steps` steps after two warm-up steps."""
    if form["keep"]:
        keep_memory()
    step = build_step(options, form)
    return float(np.median([step() for _ in range(options.steps + 2)][2:]))


def regulariser_ratio(options: argparse.Namespace) -> float:
    """Seconds a step with the regulariser over those without, the two in turn."""
    keep_memory()
    form = {"bfloat16": True, "contiguous": False}
    steps = build_step(options, form), build_step(options, {**form, "weight": 4.0})
    seconds = np.array([[step() for step in steps] for _ in range(2 * options.steps)])[2:]
    return float(np.median(seconds[:, 1] / seconds[:, 0]))


def plain_margin(
    categories: torch.Tensor, group_labels: torch.Tensor, weights: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """The regulariser over all pairs at once."""
    unit = torch.nn.functional.normalize(categories, dim=1)
    pairs = len(unit) * (len(unit) - 1)
    off_diagonal = 1 - torch.eye(len(unit))
    cosine = unit @ unit.T
    mean = (cosine * off_diagonal).sum() / pairs
    affinity = torch.sigmoid(1 - group_hamming(group_labels, weights) / temperature)
    return ((cosine - mean - affinity).square() * off_diagonal).sum() / pairs


def extra_megabytes(plain: bool) -> float:
    """Growth of the process's peak memory by one forward and backward pass of the regulariser."""
    rows = distinct_rows()
    labels = TrainingLabels.of(rows, SCHEMA)
    groups = labels.group_labels(torch.from_numpy(rows))
    categories = torch.randn(CATEGORIES, 128, requires_grad=True)
    weights = torch.ones(len(SCHEMA.groups), requires_grad=True)
    margin = plain_margin if plain else adaptive_semantic_margin
    margin(categories[:32], groups[:32], weights, temperature=8.5).backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    margin(categories, groups, weights, temperature=8.5).backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def measure(options: argparse.Namespace, what: dict[str, float] | str) -> float:
    """Seconds a step of a form, or what is known of the regulariser by name."""
    if isinstance(what, dict):
        return seconds_per_step(options, what)
    return regulariser_ratio(options) if what == "ratio" else extra_megabytes(what == "all pairs at once")


def main() -> None:
    options = read_options(__doc__.splitlines()[0], measure)
    first = 0.0
    for name, form in FORMS.items():
        seconds = measure_apart(form)
        first = first or seconds
        print(f"{name:<40}{options.batch / seconds:>8.0f} images/s{first / seconds:>7.2f}", flush=True)
    print(f"with the regulariser a step takes {measure_apart('ratio'):.2f} times as long")
    for name in ("all pairs at once", "blocks of rows"):
        print(f"regulariser, {name}: {measure_apart(name):.0f} MB more at the peak")


if __name__ == "__main__":
    main()
