"""The picture of real and made features."""

import numpy as np
import pytest
import torch
from PIL import Image
from test_methods import build

from descry.trainer.config import ExperimentConfig
from descry.trainer.datasets import DataConfig, load_dataset
from descry.trainer.features_figure import FeatureSet, collect_features, draw_features, feature_panels
from descry.trainer.labels import TrainingLabels
from descry.trainer.methods import SAL
from descry.trainer.subject import Subject
from descry.trainer.transforms import ImageConfig
from descry.trainer.tsne import frequent_categories


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
    subject = Subject(None, data, persons, persons.subset("test"))
    panels = feature_panels(method, subject, 3)
    assert list(panels) == ["seen categories", "unseen categories"]
    for panel, split in zip(panels.values(), (training, subject.persons), strict=True):
        categories = frequent_categories(split, 3, labels.categories, split is training)
        assert all(len(np.unique(split.attributes[rows], axis=0)) == 1 for rows in categories)
        assert panel.real.shape == panel.made.shape == (sum(map(len, categories)), 512)
    again = collect_features(method, training, data, frequent_categories(training, 3, labels.categories))
    assert torch.equal(again.made, panels["seen categories"].made)
    draw_features(panels, tmp_path / "features.png")
    with Image.open(tmp_path / "features.png") as image:
        assert image.width > 2 * image.height and np.asarray(image).std() > 10
