"""Learning rates by step."""

import math

import pytest
import torch

from descry.trainer.config import StageConfig
from descry.trainer.optimizers import set_learning_rate

STEPS = 10


def rates(stage: StageConfig, multiplier: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "lr": 1.0, "multiplier": multiplier}])
    given = []
    for step in range(stage.epochs * STEPS):
        set_learning_rate(optimizer, stage, step, STEPS)
        given.append(optimizer.param_groups[0]["lr"])
    return given


def test_steps_multiply_the_rate_at_the_start_of_their_epochs():
    given = rates(StageConfig("s", 4, learning_rate=0.1, milestones=(1, 3)), multiplier=5.0)
    assert given == pytest.approx([0.5] * 10 + [0.05] * 20 + [0.005] * 10)


def test_the_warm_up_is_linear_from_its_start():
    """Cerberus: from 3.5e-6 to 3.5e-4."""
    given = rates(StageConfig("s", 2, learning_rate=3.5e-4, warmup_steps=10, warmup_start=0.01))
    assert given[9] == pytest.approx(3.5e-4) and given[10:] == pytest.approx([3.5e-4] * 10)
    differences = [after - before for before, after in zip(given[:9], given[1:10], strict=True)]
    assert differences == pytest.approx([0.99 * 3.5e-4 / 10] * 9)
    assert given[0] - differences[0] == pytest.approx(3.5e-6)


def test_the_cosine_falls_to_zero_after_the_warm_up():
    given = rates(StageConfig("s", 5, learning_rate=2.0, warmup_steps=10, schedule="cosine"))
    expected = [1 + math.cos(math.pi * step / 40) for step in range(40)]
    assert given[10:] == pytest.approx(expected)
    assert given[10] == 2.0 and given[-1] < 0.005
