"""A checkpoint that is trained in seconds, for the tests of what comes after training."""

from pathlib import Path

import yaml

from descry.trainer.config import load_config
from descry.trainer.run import train

EXPERIMENT = {
    "method": {"name": "asmr", "backbone": {"name": "resnet18", "last_stride": 1}},
    "image": {"height": 64, "width": 32},
    "train": {
        "device": "cpu",
        "workers": 0,
        "stages": [
            {"name": "pretrain", "epochs": 3, "batch_size": 16, "learning_rate": 0.02},
            {"name": "align", "epochs": 2, "batch_size": 16, "learning_rate": 0.002, "multipliers": {"category": 15.0}},
        ],
    },
}


def train_briefly(people: Path, directory: Path) -> Path:
    """Train ASMR on a folder for a few steps; returns the checkpoint folder."""
    path = directory.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({**EXPERIMENT, "data": {"name": "folder", "root": str(people)}}))
    train(load_config(path, [f"--train.directory={directory}"]))
    return directory
