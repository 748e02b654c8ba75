"""`train.initial`: starting from the weights of another checkpoint."""

import pytest
import torch
import yaml
from experiments import train_briefly
from people import render_people
from safetensors.torch import load_file

from descry.trainer.checkpoint import CheckpointError, load_checkpoint, load_initial
from descry.trainer.config import load_config
from descry.trainer.run import train


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """A PAR baseline and the people that it was trained on."""
    folder = tmp_path_factory.mktemp("initial")
    people = render_people(folder / "people", persons=16)
    return people, train_briefly(people, folder / "baseline", "par_baseline")


def experiment(people, directory, method: str, **train_options):
    content = yaml.safe_load((directory.parent / "baseline.yaml").read_text())
    content["method"]["name"] = method
    content["train"] = {**content["train"], "directory": str(directory), **train_options}
    path = directory.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(content))
    return load_config(path)


def test_another_method_starts_from_the_backbone_and_keeps_its_own_labels(baseline, capfd):
    people, directory = baseline
    stages = [{"name": "joint", "epochs": 1, "batch_size": 16, "learning_rate": 0.0}]
    config = experiment(people, directory.parent / "multitask", "multitask", stages=stages, initial=str(directory))
    train(config)
    said = capfd.readouterr().err
    assert "not there, initialised anew: " in said and "token_classifiers" in said and "backbone" not in said
    before, after = (load_file(folder / "model.safetensors") for folder in (directory, directory.parent / "multitask"))
    weights = [name for name in before if name.startswith("backbone.")]
    assert weights and all(torch.equal(before[name], after[name]) for name in weights)
    assert torch.equal(before["categories"], after["categories"])


def test_what_was_not_found_is_said(baseline):
    people, directory = baseline
    method = load_checkpoint(directory).method
    before = {name: buffer.clone() for name, buffer in method.named_buffers(recurse=False)}
    method.categories.zero_()
    assert load_initial(method, directory) == []
    assert not method.categories.any(), "categories belong to the data, not to the weights"
    assert before["categories"].any()
    method.classifier = torch.nn.Linear(3, 3)
    assert load_initial(method, directory) == ["classifier.bias", "classifier.weight"]


def test_a_folder_that_cannot_be_used_is_refused(baseline, tmp_path):
    _, directory = baseline
    with pytest.raises(CheckpointError, match="model.safetensors does not exist; give the folder that training wrote"):
        load_initial(load_checkpoint(directory).method, tmp_path)
    method = load_checkpoint(directory).method
    method.backbone = torch.nn.Linear(2, 2)
    method.classifier = torch.nn.Linear(3, 3)
    with pytest.raises(CheckpointError, match="has no weight of this method; set train.initial to another folder"):
        load_initial(method, directory)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_initial(method, tmp_path)
