"""Experiments that train in seconds, and what they leave."""

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml

from descry.trainer.config import ExperimentConfig, load_config
from descry.trainer.run import train
from descry.trainer.state import History

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
    "cerberus": [
        {
            "name": "end_to_end",
            "epochs": 4,
            "batch_size": 16,
            "sampler": "identity",
            "images_per_label": 2,
            "optimizer": "adam",
            "learning_rate": 0.001,
            "warmup_steps": 4,
            "schedule": "cosine",
        }
    ],
    "descry": [
        *EXPERIMENT["train"]["stages"],
        {
            "name": "persons",
            "epochs": 2,
            "batch_size": 16,
            "sampler": "identity",
            "images_per_label": 2,
            "learning_rate": 0.01,
        },
    ],
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


def configure(experiment: dict[str, Any], people: Path, directory: Path, *overrides: str) -> ExperimentConfig:
    """An experiment on a folder of people that leaves its checkpoint in `directory`, read from a file beside it."""
    path = directory.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({**experiment, "data": {"name": "folder", "root": str(people)}}))
    return load_config(path, [f"--train.directory={directory}", *overrides])


def train_briefly(people: Path, directory: Path, method: str = "asmr") -> Path:
    """Train a method on a folder for a few steps; returns the checkpoint folder."""
    changes = {
        "method": {"name": method, "backbone": BACKBONE},
        "train": {**EXPERIMENT["train"], "stages": STAGES[method]},
    }
    train(configure({**EXPERIMENT, **changes}, people, directory))
    return directory


def weights_of(config: ExperimentConfig) -> dict[str, torch.Tensor]:
    """The weights of a finished run by name."""
    return safetensors.torch.load_file(Path(config.train.directory) / "model.safetensors")


def history_of(config: ExperimentConfig) -> list[dict[str, Any]]:
    """The lines of its `history.jsonl`."""
    return History(Path(config.train.directory)).read()
