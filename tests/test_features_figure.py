"""The picture of real and made features."""

import numpy as np
import pytest
import torch
from PIL import Image
from test_methods import build

from descry.trainer.config import ExperimentConfig
from descry.trainer.datasets import DataConfig, load_dataset
from descry.trainer.features_figure import FeatureSet, collect_features, draw_features, frequent_categories, main
from descry.trainer.labels import TrainingLabels
from descry.trainer.methods import SAL
from descry.trainer.transforms import ImageConfig


@pytest.fixture
def data(people):
    return ExperimentConfig({"name": "sal"}, DataConfig("folder", str(people)), ImageConfig(32, 16))


def test_near_counts_the_features_next_to_their_own_category():
    real = torch.tensor([[0.0], [0.2], [1.0], [1.2]])
    made = torch.tensor([[0.3], [0.9], [2.0]])
    features = FeatureSet(real, torch.tensor([0, 0, 1, 1]), made, torch.tensor([0, 0, 1]))
    assert features.near() == pytest.approx(2 / 3)


def test_features_of_seen_and_unseen_categories(data, tmp_path):
    persons = load_dataset(data.data)
    training = persons.subset("train")
    labels = TrainingLabels.of(training.attributes, persons.schema)
    torch.manual_seed(0)
    method = SAL(build("sal").config, persons.schema, labels).eval()
    panels = {}
    for name, split in (("seen", training), ("unseen", persons.subset("test"))):
        categories = frequent_categories(split, labels.categories, name == "seen", 3)
        assert all(len(np.unique(split.attributes[rows], axis=0)) == 1 for rows in categories)
        panels[name] = collect_features(method, split, data, categories)
        assert panels[name].real.shape == panels[name].made.shape == (sum(map(len, categories)), 512)
    again = collect_features(method, training, data, frequent_categories(training, labels.categories, True, 3))
    assert torch.equal(again.made, panels["seen"].made)
    draw_features(panels, tmp_path / "features.png")
    assert Image.open(tmp_path / "features.png").size == (1320, 572)


def test_another_method_is_refused(trained, tmp_path, capsys):
    assert main([str(trained), "--figure", str(tmp_path / "features.png")]) == 1
    assert "makes no features: this figure is for method sal" in capsys.readouterr().err
