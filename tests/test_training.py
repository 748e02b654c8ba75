"""The loop on a tiny dataset: exact resume, equality over processes, checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from experiments import history_of, weights_of

from descry.trainer import run
from descry.trainer.checkpoint import CheckpointError, load_checkpoint, write_atomically
from descry.trainer.datasets import load_dataset
from descry.trainer.run import train
from descry.trainer.transforms import CropDataset

ROOT = Path(__file__).parents[1]
EXPERIMENT = {
    "method": {"name": "asmr", "backbone": {"name": "resnet18", "last_stride": 1}},
    "image": {"height": 32, "width": 16},
    "train": {
        "device": "cpu",
        "workers": 0,
        "log_every": 1,
        "stages": [
            {"name": "pretrain", "epochs": 1, "batch_size": 16},
            {"name": "align", "epochs": 2, "batch_size": 16, "learning_rate": 0.001, "multipliers": {"category": 15.0}},
        ],
    },
}


@pytest.mark.parametrize("stop", [2, 4, 7, 10], ids=lambda stop: f"after_{stop}_steps")
def test_an_interrupted_and_resumed_run_equals_the_uninterrupted_one(experiment, stop):
    whole = experiment("whole")
    train(whole)
    first = experiment("parts", f"--train.max_steps={stop}")
    train(first)
    assert not (Path(first.train.directory) / "model.safetensors").exists()
    resumed = experiment("parts")
    train(resumed, resume=True)
    ours, theirs = weights_of(whole), weights_of(resumed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert history_of(whole) == history_of(resumed)


def test_a_killed_run_resumes_from_its_last_state(experiment, few_people):
    """SIGKILL in the middle of an epoch, with a state every second step."""
    whole = experiment("whole")
    train(whole)
    config = experiment("killed", "--train.checkpoint_every=2")
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom descry.trainer import loop\n"
        "from descry.trainer.config import load_config\nfrom descry.trainer.run import train\n"
        "step = loop.Trainer._log_step\n"
        "def log(self, *rest):\n"
        "    step(self, *rest)\n"
        "    if self.progress.total == 7: os.kill(os.getpid(), signal.SIGKILL)\n"
        "loop.Trainer._log_step = log\n"
        "train(load_config(Path(sys.argv[1])))\n"
    )
    path = Path(config.train.directory).with_suffix(".yaml")
    path.write_text(config.to_yaml())
    killed = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, timeout=300)
    assert killed.returncode == -9, killed.stderr.decode()
    train(config, resume=True)
    ours, theirs = weights_of(whole), weights_of(config)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_two_processes_equal_one_with_the_same_global_batch(experiment, tmp_path):
    """`align` alone: its batch norms are frozen, so the loss is a mean over images."""
    stage = {"name": "align", "epochs": 1, "learning_rate": 0.01}
    histories = []
    for processes, batch in ((1, 16), (2, 8)):
        stages = yaml.safe_dump([{**stage, "batch_size": batch}], default_flow_style=True).strip()
        config = experiment(f"processes_{processes}", f"--train.stages={stages}")
        path = tmp_path / f"processes_{processes}.yaml"
        path.write_text(config.to_yaml())
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        subprocess.run(
            [*command, "trainer/run.py", "--config", str(path)],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        histories.append([entry for entry in history_of(config) if "alignment" in entry])
    one, two = histories
    assert len(one) == len(two) >= 3
    for ours, theirs in zip(one, two, strict=True):
        assert ours["alignment"] == pytest.approx(theirs["alignment"], rel=1e-4)
        assert ours["semantic_margin"] == pytest.approx(theirs["semantic_margin"], rel=1e-4)


def test_accumulated_gradients_equal_a_larger_batch(experiment):
    """72 training images: 6 batches of 12, or 12 of 6 in pairs."""
    stages = "[{name: align, epochs: 1, batch_size: %d, learning_rate: 0.01}]"
    large = experiment("large", f"--train.stages={stages % 12}")
    small = experiment("small", f"--train.stages={stages % 6}", "--train.accumulate=2")
    train(large)
    train(small)
    assert history_of(large)[-1]["total"] == 6 and history_of(small)[-1]["total"] == 12
    ours, theirs = weights_of(large), weights_of(small)
    trained = [name for name in ours if name.startswith(("category_encoder", "image_head", "group_offsets"))]
    for name in trained:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-3)


def test_a_run_leaves_a_checkpoint_that_rebuilds_the_method(experiment, few_people):
    config = experiment("run", "--train.trackers=[tensorboard]", "--train.keep=best")
    result = train(config)
    checkpoint = load_checkpoint(Path(config.train.directory))
    assert checkpoint.metrics["fusion"] == result["fusion"] or checkpoint.metrics["split"] == "val"
    assert checkpoint.schema == load_dataset(config.data).schema
    assert not checkpoint.method.training
    assert len(checkpoint.digest) == 64
    assert list(Path(config.train.directory).glob("trackers/**/events.*"))
    crops = CropDataset(load_dataset(config.data).subset("test"), config.image)
    images = torch.stack([crops[index]["image"] for index in range(4)])
    again = load_checkpoint(Path(config.train.directory)).method
    with torch.no_grad():
        assert torch.equal(checkpoint.method.encode_image(images)[0], again.encode_image(images)[0])


def test_a_run_is_not_overwritten(experiment):
    config = experiment("run", "--train.max_steps=1")
    train(config)
    with pytest.raises(FileExistsError, match="holds a run: pass --resume"):
        train(config)


def test_augmentation_is_a_function_of_seed_epoch_and_index(experiment):
    config = experiment("none", "--image.padding=4", "--image.color_jitter=0.4", "--image.erase=0.5")
    persons = load_dataset(config.data)
    crops, other = (CropDataset(persons, config.image, seed=seed) for seed in (0, 1))
    first = crops[3]["image"]
    torch.rand(100)
    assert torch.equal(crops[3]["image"], first)
    assert not torch.equal(other[3]["image"], first)
    crops.set_epoch(1)
    assert not torch.equal(crops[3]["image"], first)


def test_a_corrupt_image_is_named(experiment, tmp_path):
    config = experiment("none")
    persons = load_dataset(config.data)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(persons.images[0].read_bytes()[:200])
    crops = CropDataset(type(persons)(**{**vars(persons), "images": (broken, *persons.images[1:])}), config.image)
    with pytest.raises(Exception, match=f"cannot decode {broken}"):
        crops[0]


@pytest.mark.parametrize("name", ["model.safetensors", "schema.json", "config.yaml", "metrics.json"])
def test_an_incomplete_or_damaged_checkpoint_is_named(experiment, name):
    config = experiment("run")
    train(config)
    directory = Path(config.train.directory)
    if name == "model.safetensors":
        content = (directory / name).read_bytes()
        (directory / name).write_bytes(content[:1000])
        with pytest.raises(CheckpointError, match="model.safetensors is damaged"):
            load_checkpoint(directory)
    (directory / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} does not exist"):
        load_checkpoint(directory)


def test_a_checkpoint_with_the_schema_of_another_is_refused(experiment):
    config = experiment("run")
    train(config)
    path = Path(config.train.directory) / "schema.json"
    schema = json.loads(path.read_text())
    schema["groups"] = schema["groups"][:-1]
    path.write_text(json.dumps(schema))
    with pytest.raises(CheckpointError, match="was trained on another schema"):
        load_checkpoint(Path(config.train.directory))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.json"]


def test_the_command_line_reports_what_is_wrong(experiment, tmp_path, capsys):
    experiment("run")
    path = tmp_path / "run.yaml"
    assert run.main(["--config", str(path), "--data.root=/nowhere"]) == 1
    assert "labels.csv does not exist" in capsys.readouterr().err
    assert run.main(["--config", str(path), "--train.stages.0.batch_size=5000"]) == 1
    assert "fewer than one batch" in capsys.readouterr().err
    assert run.main(["--config", str(path), "--train.stages.0.multipliers.head=2.0"]) == 1
    assert "multiplier 'head' names no parameter group" in capsys.readouterr().err
