"""Descry's own method: what its embedding means, and who learns from what."""

import pytest
import torch
import torch.nn.functional as F
from test_methods import SCHEMA, build, make_batch, training_rows

from descry.trainer.labels import TrainingLabels
from descry.trainer.methods import ASMR, Descry

SHARE = 0.75


@pytest.fixture
def method() -> Descry:
    return build("descry", person_size=16, person_share=SHARE, hubness=0.5).eval()


def as_asmr(method: Descry) -> ASMR:
    """ASMR with the weights that `method` shares with it."""
    asmr = build("asmr", hubness=method.config.hubness)
    asmr.load_state_dict({name: value for name, value in method.state_dict().items() if name in asmr.state_dict()})
    return asmr.eval()


@torch.no_grad()
def test_a_description_is_as_near_to_an_image_as_with_asmr(method):
    images, stated = make_batch()["image"], torch.from_numpy(training_rows(3)).float()
    known = torch.ones_like(stated)
    known[1, SCHEMA.slices["hat"]] = 0
    asmr = as_asmr(method)
    similarities = method.encode_attributes(stated, known) @ method.encode_image(images)[0].T
    torch.testing.assert_close(similarities, asmr.encode_attributes(stated, known) @ asmr.encode_image(images)[0].T)


@torch.no_grad()
def test_two_images_are_as_alike_as_their_descriptions_and_their_persons_say(method):
    images = make_batch()["image"]
    embeddings, features = method.encode_image(images)
    described = as_asmr(method).encode_image(images)[0]
    persons = F.normalize(method.person_space(features), dim=1)
    expected = (1 - SHARE) * described @ described.T + SHARE * persons @ persons.T
    torch.testing.assert_close(embeddings @ embeddings.T, expected)


@torch.no_grad()
def test_the_features_of_an_image_and_of_its_mirror_image_are_averaged(method):
    images = make_batch()["image"]
    plain = (method.encode_image(images)[1] + method.encode_image(images.flip(3))[1]) / 2
    mirrored = build("descry", person_size=16, mirror=True).eval()
    mirrored.load_state_dict(method.state_dict())
    torch.testing.assert_close(mirrored.encode_image(images)[1], plain)
    torch.testing.assert_close(*(mirrored.encode_image(side)[1] for side in (images, images.flip(3))))


@pytest.mark.parametrize(("stage", "learns"), [("pretrain", True), ("align", False)])
def test_the_image_network_learns_persons_in_pretrain_alone(method, stage, learns):
    """In `align` its gradient is ASMR's."""
    gradients = []
    for network in (method, as_asmr(method)):
        network.begin_stage(stage)
        network.eval()
        network(make_batch())["loss"].backward()
        gradients.append([parameter.grad for parameter in network.backbone.parameters() if parameter.grad is not None])
    same = all(torch.allclose(*pair, atol=1e-6) for pair in zip(*gradients, strict=True))
    assert same is not learns


def test_what_cannot_be_learnt_is_refused():
    labels = TrainingLabels.of(training_rows(), SCHEMA)
    with pytest.raises(ValueError, match="names no person"):
        Descry(Descry.Config(build("asmr").config.backbone), SCHEMA, labels)
    with pytest.raises(ValueError, match=r"person_share must lie in 0..1, below 1, got 1"):
        build("descry", person_share=1.0)
