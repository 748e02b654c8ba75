"""The optimizers of a stage, their learning rates, and what is done to gradients before a step."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from descry.trainer.config import StageConfig
from descry.trainer.methods import Method


def build_optimizers(method: Method, stage: StageConfig) -> dict[str, torch.optim.Optimizer]:
    """An optimizer for each update of the stage, with the learning-rate multiplier of each parameter group.

    Raises:
        ValueError: a multiplier names no parameter group of the stage.
    """
    groups = method.parameter_groups(stage.name)
    unknown = sorted(set(stage.multipliers) - set(groups))
    if unknown:
        raise ValueError(
            f"stage {stage.name}: multiplier {unknown[0]!r} names no parameter group; valid: {', '.join(groups)}"
        )
    return {
        update: _build_optimizer(stage, {name: groups[name] for name in names})
        for update, names in method.updates(stage.name).items()
    }


def _build_optimizer(stage: StageConfig, groups: dict[str, list[nn.Parameter]]) -> torch.optim.Optimizer:
    parameters: list[dict[str, Any]] = [
        {"params": parameters, "lr": stage.learning_rate, "multiplier": stage.multipliers.get(name, 1.0)}
        for name, parameters in groups.items()
    ]
    if stage.optimizer == "adam":
        return torch.optim.Adam(parameters, betas=stage.betas, weight_decay=stage.weight_decay)
    return torch.optim.SGD(
        parameters, momentum=stage.momentum, nesterov=stage.nesterov, weight_decay=stage.weight_decay
    )


def clip_gradients(model: nn.Module, limit: float) -> Tensor:
    """Scale the gradients down to the norm `limit`, unless it is 0; returns their norm before, a scalar."""
    updated = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in updated if parameter.grad is not None])
    if limit:
        torch.nn.utils.clip_grads_with_norm_(updated, limit, norm)
    return norm


def set_learning_rate(optimizer: Any, stage: StageConfig, step: int, steps_per_epoch: int) -> None:
    """Set the rates of step `step` (from the stage's start): a function of the step alone, needing no state."""
    factor = 1.0
    if step < stage.warmup_steps:
        factor = stage.warmup_start + (1 - stage.warmup_start) * (step + 1) / stage.warmup_steps
    elif stage.schedule == "cosine":
        steps = stage.epochs * steps_per_epoch - stage.warmup_steps
        factor = (1 + math.cos(math.pi * (step - stage.warmup_steps) / steps)) / 2
    factor *= stage.decay ** sum(step // steps_per_epoch >= milestone for milestone in stage.milestones)
    for group in optimizer.param_groups:
        group["lr"] = stage.learning_rate * factor * group["multiplier"]
