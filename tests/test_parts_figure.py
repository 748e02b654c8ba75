"""The pictures of Cerberus's parts and persons."""

import numpy as np
import pytest
import torch
from experiments import train_briefly
from PIL import Image

from descry.trainer.checkpoint import load_checkpoint
from descry.trainer.datasets import DataConfig, load_dataset
from descry.trainer.figures import main
from descry.trainer.parts_figure import IMAGES, PERSONS, draw_parts, persons_of_one_id


@pytest.fixture(scope="module")
def cerberus(people, tmp_path_factory):
    return train_briefly(people, tmp_path_factory.mktemp("cerberus") / "run", "cerberus")


def test_both_pictures_are_drawn(cerberus, tmp_path):
    paths = tmp_path / "new" / "parts.png", tmp_path / "persons.png"
    assert main([str(cerberus), "--parts", str(paths[0]), "--persons", str(paths[1]), "--photos", "2"]) == 0
    assert all(np.asarray(Image.open(path)).std() > 10 for path in paths)


def test_the_persons_share_one_semantic_id(cerberus, people):
    method = load_checkpoint(cerberus).method
    test = load_dataset(DataConfig("folder", str(people))).subset("train")
    shared = persons_of_one_id(method, test)
    space = method.parts[shared.name.partition(":")[0]]
    assert len(space.labels(torch.from_numpy(test.attributes[shared.rows])).unique()) == 1
    images = np.unique(test.persons[shared.rows], return_counts=True)[1]
    assert 2 <= len(images) <= PERSONS and images.max() <= IMAGES


def test_red_is_where_the_map_is_positive(tmp_path):
    maps = torch.zeros(1, 1, 4, 2)
    maps[0, 0, :2], maps[0, 0, 2:] = 1.0, -1.0
    draw_parts(torch.full((1, 3, 64, 32), 128, dtype=torch.uint8), maps, ["head"], tmp_path / "parts.png")
    picture = np.asarray(Image.open(tmp_path / "parts.png").convert("RGB")).astype(int)
    right = picture[:, picture.shape[1] // 2 :]
    redness = (right[..., 0] - right[..., 2]).sum(axis=1)
    top, bottom = redness[: len(redness) // 2], redness[len(redness) // 2 :]
    assert top.max() > 1000 and bottom.min() < -1000
