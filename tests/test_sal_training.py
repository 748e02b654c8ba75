"""Several updates an iteration in the loop: exact resume, processes, accumulation; and runs that diverge."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from experiments import history_of, weights_of
from torch import nn

from descry.trainer.checkpoint import load_checkpoint
from descry.trainer.config import ExperimentConfig, StageConfig, TrainConfig
from descry.trainer.datasets import DataConfig, load_dataset
from descry.trainer.labels import TrainingLabels
from descry.trainer.loop import Trainer
from descry.trainer.methods import Method
from descry.trainer.run import train
from descry.trainer.state import DivergenceError, DivergenceGuard, History
from descry.trainer.transforms import ImageConfig

ROOT = Path(__file__).parents[1]
STAGE = {"name": "symbiosis", "epochs": 1, "batch_size": 16, "learning_rate": 0.001, "optimizer": "adam"}
EXPERIMENT = {
    "method": {"name": "sal", "backbone": {"name": "resnet18", "last_stride": 2}},
    "image": {"height": 32, "width": 16},
    "train": {"device": "cpu", "workers": 0, "log_every": 1, "stages": [STAGE]},
}


def test_an_interrupted_and_resumed_run_equals_the_uninterrupted_one(experiment):
    """Five optimizers, new descriptions and noise, stopped between two iterations."""
    whole = experiment("whole")
    train(whole)
    train(experiment("parts", "--train.max_steps=2"))
    resumed = experiment("parts")
    train(resumed, resume=True)
    ours, theirs = weights_of(whole), weights_of(resumed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert history_of(whole) == history_of(resumed)
    steps = [entry for entry in history_of(whole) if "gradient_norms" in entry]
    assert len(steps) == 4
    updates = ["embed", "synthesis_discriminator", "generators", "alignment_discriminator", "encoders"]
    assert all(list(entry["gradient_norms"]) == list(entry["losses"]) == updates for entry in steps)
    assert all(norm > 0 for entry in steps for norm in entry["gradient_norms"].values())
    accuracies = [entry["alignment_accuracy"] for entry in history_of(whole) if "loss" in entry]
    assert len(accuracies) == 4 and all(0 <= accuracy <= 1 for accuracy in accuracies)


def test_two_processes_equal_one_with_the_same_global_batch(experiment, tmp_path):
    """The batch norms of the networks see both halves; those of the backbone are frozen."""
    histories, weights = [], []
    for processes, batch in ((1, 16), (2, 8)):
        stage = {**STAGE, "optimizer": "sgd", "batch_size": batch}
        stages = yaml.safe_dump([stage], default_flow_style=True).strip()
        config = experiment(
            f"processes_{processes}", f"--train.stages={stages}", "--method.freeze_batch_norm=true"
        )  # fmt: skip
        path = tmp_path / f"processes_{processes}.yaml"
        path.write_text(config.to_yaml())
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        subprocess.run(
            [*command, "trainer/run.py", "--config", str(path)],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        histories.append([entry for entry in history_of(config) if "loss" in entry or "losses" in entry])
        weights.append(weights_of(config))
    one, two = histories
    assert len(one) == len(two) == 8
    for ours, theirs in zip(one, two, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"stage", "gradient_norms"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name
    for name, norm in one[1]["gradient_norms"].items():
        assert norm == pytest.approx(two[1]["gradient_norms"][name], rel=1e-3), name
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], atol=2e-4, rtol=1e-2)


class TwoPlayers(Method):
    """Two updates that share a parameter and are means over images: exact in any batch size."""

    stages = ("play",)

    def __init__(self, schema, labels):
        super().__init__(schema, labels)
        torch.manual_seed(0)
        self.stage = "play"
        self.first, self.shared, self.second = (nn.Parameter(torch.randn(3)) for _ in range(3))

    def parameter_groups(self, stage):
        return {"first": [self.first], "shared": [self.shared], "second": [self.second]}

    def updates(self, stage):
        return {"a": ("first", "shared"), "b": ("shared", "second")}

    def forward(self, batch):
        colors = batch["colors"] if "colors" in batch else batch["image"].float().mean(dim=(2, 3)) / 255
        player = self.first if batch["update"] == "a" else self.second
        loss = (colors @ (player * self.shared) - 1).square().mean()
        return {"loss": loss, f"loss_{batch['update']}": loss.detach(), "carried": {"colors": colors}}


def play(few_people: Path, directory: Path, batch: int, accumulate: int, **options) -> TwoPlayers:
    stage = StageConfig("play", 1, batch, learning_rate=options.pop("learning_rate", 0.1))
    settings = TrainConfig(str(directory), (stage,), accumulate=accumulate, log_every=1, device="cpu", **options)
    data = DataConfig("folder", str(few_people))
    config = ExperimentConfig({"name": "asmr"}, data, ImageConfig(32, 16), settings)
    training = load_dataset(data).subset("train")
    method = TwoPlayers(training.schema, TrainingLabels.of(training.attributes, training.schema))
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    Trainer(config, method, training, accelerator, lambda stage, epoch: {}, lambda metrics: None).run()
    return method


def test_accumulated_updates_equal_those_of_a_larger_batch(few_people, tmp_path):
    """72 images: each of two updates that share a parameter sees both halves before the other one starts."""
    large, small = play(few_people, tmp_path / "large", 12, 1), play(few_people, tmp_path / "small", 6, 2)
    for name, parameter in large.named_parameters():
        torch.testing.assert_close(parameter, small.get_parameter(name), atol=1e-6, rtol=1e-5)
    large_history, small_history = (History(tmp_path / name).read() for name in ("large", "small"))
    assert [entry["total"] for entry in large_history if "loss" in entry] == list(range(1, 7))
    assert [entry["total"] for entry in small_history if "loss" in entry] == list(range(2, 13, 2))
    for ours, theirs in zip(large_history[:-1], small_history[:-1], strict=True):
        if "loss" in ours:
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
            assert ours["loss"] == pytest.approx(ours["loss_a"] + ours["loss_b"])


def test_the_second_update_sees_what_the_first_one_changed(few_people, tmp_path):
    """By hand, on the colours of the whole training split as one batch."""
    method = play(few_people, tmp_path / "one", 72, 1, seed=0)
    expected = TwoPlayers(method.schema, method.labels)
    training = load_dataset(DataConfig("folder", str(few_people))).subset("train")
    from descry.trainer.transforms import CropDataset

    crops = CropDataset(training, ImageConfig(32, 16), seed=0)
    colors = torch.stack([crops[index]["image"] for index in range(72)]).float().mean(dim=(2, 3)) / 255
    for player in ("first", "second"):
        chosen = [expected.get_parameter(player), expected.shared]
        loss = (colors @ (chosen[0] * chosen[1]) - 1).square().mean()
        gradients = torch.autograd.grad(loss, chosen)
        with torch.no_grad():
            for parameter, gradient in zip(chosen, gradients, strict=True):
                # The first step of SGD with Nesterov's momentum 0.9.
                parameter -= 0.1 * 1.9 * (gradient + 5e-4 * parameter)
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(name), atol=1e-5, rtol=1e-4)


def test_a_run_that_diverges_stops_and_keeps_the_last_good_weights(experiment):
    stages = [{"name": "image", "epochs": 1, "batch_size": 16}, {**STAGE, "optimizer": "sgd", "learning_rate": 1e9}]
    config = experiment("wild", f"--train.stages={yaml.safe_dump(stages, default_flow_style=True).strip()}")
    with pytest.raises(DivergenceError, match=r"step \d: the .* the last good weights: .* from step-00000004 with"):
        train(config)
    good = load_checkpoint(Path(config.train.directory)).method
    assert all(torch.isfinite(value).all() for value in good.state_dict().values() if value.is_floating_point())
    assert max(entry["total"] for entry in history_of(config)) < 8


def test_a_run_that_diverges_before_any_state_says_so(few_people, tmp_path):
    with pytest.raises(DivergenceError, match="no state had been saved: lower the learning rate"):
        play(few_people, tmp_path / "wild", 12, 1, learning_rate=1e6)


def test_the_guard_tells_growth_from_noise():
    guard = DivergenceGuard(10.0, [])
    for _ in range(20):
        guard.check({"a": 50.0, "b": 0.001}, {"a": 1e9})
    guard.check({"a": 499.0, "b": 9.0}, {})
    with pytest.raises(DivergenceError, match=r"the loss of update 'a' is 501, more than 10 times the 50 of its first"):
        guard.check({"a": 501.0}, {})
    with pytest.raises(DivergenceError, match="the gradient norm of update 'b' is nan"):
        guard.check({}, {"b": float("nan")})
    with pytest.raises(DivergenceError, match="the loss of update 'b' is inf"):
        guard.check({"b": float("inf")}, {})
    DivergenceGuard(0.0, []).check({"a": 1e30}, {})


def test_a_resumed_guard_judges_by_the_same_first_steps():
    entries = [{"losses": {"a": 2.0}}, {"metrics": {}}, {"losses": {"a": 2.0}}]
    with pytest.raises(DivergenceError, match="more than 10 times the 2 of its first"):
        DivergenceGuard(10.0, entries).check({"a": 30.0}, {})
