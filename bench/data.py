"""Loading crops with and without the pixel cache: images/s by size and augmentation, and what a training step waits.

python bench/data.py [NAME ROOT [--labels FILE]] [--count 8000] [--rounds 3] [--steps 8]

All loaders of a row run in turn, `--rounds` times over, each over `--count` random crops from the start of its workers
to their end; the medians are printed.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from statistics import median

import torch
from torch.utils.data import DataLoader, RandomSampler
from untrained import ROOT

from descry.trainer.checkpoint import build_method
from descry.trainer.config import ExperimentConfig, TrainConfig, load_config
from descry.trainer.datasets import DataConfig, PersonDataset, load_dataset
from descry.trainer.labels import TrainingLabels
from descry.trainer.machine import build_accelerator
from descry.trainer.optimizers import build_optimizers
from descry.trainer.transforms import CropDataset, ImageConfig

BATCH = 64
SIZES = ((128, 64), (256, 128))
PRESETS = {
    "flip": ImageConfig(),
    "flip, erasing": ImageConfig(erase=0.5),
    "flip, padded crop, jitter, erasing": ImageConfig(padding=10, color_jitter=0.2, erase=0.3),
}
WORKERS = TrainConfig.workers
LOADERS = {"uncached": (False, WORKERS), "cached": (True, WORKERS), "cached, no workers": (True, 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="pa100k")
    parser.add_argument("root", nargs="?", default=str(ROOT / "data" / "pa100k_2000"))
    parser.add_argument("--labels", default="")
    parser.add_argument("--count", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    annotation = ROOT / "data" / "annotations" / "pa100k_annotation.mat"
    if options.name == "pa100k" and not options.labels and annotation.exists():
        options.labels = str(annotation)
    persons = load_dataset(DataConfig(options.name, options.root, options.labels))
    print(f"{persons.name}, {len(persons)} images; {torch.get_num_threads()} threads, {WORKERS} workers, batch {BATCH}")
    with tempfile.TemporaryDirectory() as cache:
        for height, width in SIZES:
            measure_loaders(persons, height, width, cache, options.count, options.rounds)
        measure_steps(persons, cache, options.steps, options.rounds)


def measure_loaders(persons: PersonDataset, height: int, width: int, cache: str, count: int, rounds: int) -> None:
    """Print images/s of every augmentation and loader at one size."""
    fill(CropDataset(persons, ImageConfig(height, width), cache=cache), f"{height} x {width}")
    print(f"{'images/s (times the uncached)':<36}" + "".join(f"{name:>24}" for name in LOADERS))
    for preset, config in PRESETS.items():
        config = replace(config, height=height, width=width)
        crops = {cached: CropDataset(persons, config, 0, cache if cached else "") for cached in (False, True)}
        speeds: dict[str, list[float]] = {name: [] for name in LOADERS}
        for _ in range(rounds):
            for name, (cached, workers) in LOADERS.items():
                speeds[name].append(images_per_second(crops[cached], workers, count))
        cells = [
            f"{median(values):.0f} ({median(a / b for a, b in zip(values, speeds['uncached'], strict=True)):.1f})"
            for values in speeds.values()
        ]
        print(f"{preset:<36}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


def fill(crops: CropDataset, title: str) -> None:
    """Run the epoch that decodes and writes; print its speed and what the cache takes on the disk."""
    started = time.perf_counter()
    for _ in DataLoader(crops, BATCH, num_workers=WORKERS):
        pass
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_blocks * 512 for path in crops.cache.folder.iterdir())
    print(f"\n{title}: filled at {len(crops) / seconds:.0f} images/s, {size / 1e6:.1f} MB on disk")


def images_per_second(crops: CropDataset, workers: int, count: int) -> float:
    """Of `count` random crops in batches."""
    started = time.perf_counter()
    sampler = RandomSampler(crops, num_samples=count)
    seen = sum(len(batch["image"]) for batch in DataLoader(crops, BATCH, sampler=sampler, num_workers=workers))
    return seen / (time.perf_counter() - started)


def measure_steps(persons: PersonDataset, cache: str, steps: int, rounds: int) -> None:
    """Print what a training step takes and how much of it is waiting for the batch, the workers' start included."""
    config = load_config(
        ROOT / "trainer" / "configs" / "asmr_pa100k_2000.yaml", [f"--train.directory={cache}", "--train.trackers=[]"]
    )
    step = TrainingStep(config, persons)
    crops = {cached: CropDataset(persons, config.image, 0, cache if cached else "") for cached in (False, True)}
    step.run(crops[True], 0, 2)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in LOADERS}
    for _ in range(rounds):
        for name, (cached, workers) in LOADERS.items():
            times[name].append(step.run(crops[cached], workers, steps))
    precision = step.accelerator.mixed_precision
    print(f"\nMobileNetV2, ASMR, {step.accelerator.device}, mixed precision {precision}, {config.image}")
    print(f"{'training step':<36}{'seconds':>10}{'images/s':>10}{'share waiting for data':>25}")
    for name, measured in times.items():
        seconds, share = (median(values) for values in zip(*measured, strict=True))
        print(f"{name:<36}{seconds:>10.2f}{BATCH / seconds:>10.1f}{100 * share:>23.1f} %")


class TrainingStep:
    """The last stage of an experiment, from random weights: how long a step takes does not depend on them."""

    def __init__(self, config: ExperimentConfig, persons: PersonDataset) -> None:
        """Build method and optimizer."""
        stage = config.train.stages[-1]
        self.accelerator = build_accelerator(config)
        labels = TrainingLabels.of(persons.attributes, persons.schema)
        method = build_method(config, persons.schema, labels, load_weights=False)
        method.begin_stage(stage.name)
        self.method, self.optimizer = self.accelerator.prepare(method, *build_optimizers(method, stage).values())
        self.method.train()

    def run(self, crops: CropDataset, workers: int, steps: int) -> tuple[float, float]:
        """Seconds a step and the share of them that it waited for its batch, 0..1."""
        sampler = RandomSampler(crops, num_samples=steps * BATCH)
        loader = self.accelerator.prepare(DataLoader(crops, BATCH, sampler=sampler, num_workers=workers))
        waited, started = 0.0, time.perf_counter()
        batches = iter(loader)
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            loss = self.method(batch)["loss"]
            self.accelerator.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad()
            loss.item()  # waits for an accelerator that is still computing
        total = time.perf_counter() - started
        return total / steps, waited / total


if __name__ == "__main__":
    main()
