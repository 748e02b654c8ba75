"""Checkpoints that are trained in seconds, for the tests of what comes after training."""

from pathlib import Path

import yaml

from descry.trainer.config import load_config
from descry.trainer.run import train

BACKBONE = {"name": "resnet18", "last_stride": 1}
EXPERIMENT = {
    "method": {"name": "asmr", "backbone": BACKBONE},
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
STAGES = {
    "asmr": EXPERIMENT["train"]["stages"],
    "multitask": [
        {"name": "baseline", "epochs": 2, "batch_size": 16, "learning_rate": 0.01},
        {"name": "joint", "epochs": 2, "batch_size": 16, "learning_rate": 0.002, "multipliers": {"category": 10.0}},
    ],
    "sal": [
        {"name": "embed", "epochs": 3, "batch_size": 16, "optimizer": "adam", "learning_rate": 0.001},
        {"name": "symbiosis", "epochs": 1, "batch_size": 16, "optimizer": "adam", "learning_rate": 0.0005},
    ],
    "par_baseline": [{"name": "recognize", "epochs": 3, "batch_size": 16, "learning_rate": 0.01}],
}


def train_briefly(people: Path, directory: Path, method: str = "asmr") -> Path:
    """Train a method on a folder for a few steps; returns the checkpoint folder."""
    path = directory.with_suffix(".yaml")
    content = {
        **EXPERIMENT,
        "method": {"name": method, "backbone": BACKBONE},
        "train": {**EXPERIMENT["train"], "stages": STAGES[method]},
        "data": {"name": "folder", "root": str(people)},
    }
    path.write_text(yaml.safe_dump(content))
    train(load_config(path, [f"--train.directory={directory}"]))
    return directory
