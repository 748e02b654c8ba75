"""The correction for images that are near every description."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from descry.trainer.backbones import BackboneConfig
from descry.trainer.labels import TrainingLabels
from descry.trainer.methods import ASMR
from descry.trainer.methods.hubness import crowding, lift_descriptions, lift_images
from descry.trainer.schema import AttributeGroup, AttributeSchema

SCHEMA = AttributeSchema("two", tuple(AttributeGroup(name, ("no", "yes"), "binary", "head") for name in ("hat", "bag")))


def unit(*shape):
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0, 3.0])
def test_the_inner_product_of_the_unit_vectors_is_the_corrected_similarity(strength):
    torch.manual_seed(0)
    images, descriptions, categories = unit(7, 5), unit(4, 5), unit(13, 5)
    lifted, queries = lift_images(images, crowding(images, categories), strength), lift_descriptions(descriptions)
    for rows in (lifted, queries):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows), dtype=torch.float64))
    scale = 1 / (2 * (1 + strength**2)) ** 0.5
    for q in range(4):
        for g in range(7):
            nearest = sorted((float(images[g] @ category) for category in categories), reverse=True)[:10]
            corrected = float(descriptions[q] @ images[g]) - strength * sum(nearest) / 10
            assert float(queries[q] @ lifted[g]) == pytest.approx(scale * corrected)


def test_fewer_categories_than_neighbours_are_all_taken():
    images, categories = unit(3, 4), unit(2, 4)
    torch.testing.assert_close(crowding(images, categories), (images @ categories.T).mean(dim=1, keepdim=True))


def test_the_method_ranks_by_the_corrected_similarity():
    """Against the same weights without the correction."""
    labels = TrainingLabels.of(np.array([[0, 0], [0, 1], [1, 1]], np.uint8), SCHEMA)
    torch.manual_seed(0)
    plain, corrected = (
        ASMR(ASMR.Config(BackboneConfig("resnet18"), hubness=beta), SCHEMA, labels).eval() for beta in (0.0, 0.5)
    )
    corrected.load_state_dict(plain.state_dict())
    images = torch.randint(0, 256, (6, 3, 64, 32), dtype=torch.uint8)
    stated = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    with torch.no_grad():
        units, features = plain.encode_image(images)
        lifted, same = corrected.encode_image(images)
        queries, longer = (method.encode_attributes(stated, torch.ones_like(stated)) for method in (plain, corrected))
        categories = plain.encode_attributes(plain.categories.float(), torch.ones(3, 2))
    assert lifted.shape == (6, corrected.embedding_size) and corrected.embedding_size == 130
    torch.testing.assert_close(same, features)
    expected = queries @ units.T - 0.5 * (units @ categories.T).mean(dim=1)
    torch.testing.assert_close(longer @ lifted.T, expected / (2 * 1.25) ** 0.5)
