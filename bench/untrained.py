"""Untrained checkpoints on the synthetic schema: speed does not depend on what the weights say."""

import sys
from pathlib import Path

import numpy as np

from descry.export.repository import write_repository
from descry.export.scripted import Scripted, script_models
from descry.trainer.checkpoint import Checkpoint, build_method, load_checkpoint, save_checkpoint
from descry.trainer.config import ExperimentConfig
from descry.trainer.datasets.pedestrian_population import SCHEMA, draw_category
from descry.trainer.labels import TrainingLabels
from descry.trainer.transforms import ImageConfig

ROOT = Path(__file__).parents[1]
# The gallery's modules are Triton's, outside the namespace.
sys.path.insert(0, str(ROOT / "model_repository" / "gallery_search" / "1"))


def untrained_checkpoint(
    folder: Path, backbone: str, height: int, width: int, method: str = "asmr", weights: str = ""
) -> Checkpoint:
    """Write and load a checkpoint of random weights, `weights` of the backbone apart.

    500 draws of the synthetic population, two a person, are its training labels.
    """
    generator = np.random.default_rng(0)
    rows = np.stack([draw_category(generator) for _ in range(500)])
    network = {"name": backbone, "last_stride": 1, "weights": weights}
    config = ExperimentConfig({"name": method, "backbone": network}, image=ImageConfig(height=height, width=width))
    fusion = {"par_weight": 0.2, "max_par": 3.0, "max_emb": 1.5}
    labels = TrainingLabels.of(rows, SCHEMA, np.arange(len(rows)) // 2)
    save_checkpoint(folder, build_method(config, SCHEMA, labels), config, {"fusion": fusion})
    return load_checkpoint(folder)


def untrained_repository(folder: Path, backbone: str, height: int, width: int, precision: str) -> list[Scripted]:
    """Export such a checkpoint into `folder/models`, without the parity check that random weights cannot pass."""
    checkpoint = untrained_checkpoint(folder / "checkpoint", backbone, height, width)
    models = script_models(checkpoint, precision)
    write_repository(checkpoint, models, folder / "models")
    return models
