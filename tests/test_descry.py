"""Descry's own method: what its embedding means, and who learns from what."""

import pytest
import torch
import torch.nn.functional as F
from test_methods import SCHEMA, build, make_batch, training_rows

from descry.trainer.labels import TrainingLabels
from descry.trainer.losses import IGNORE
from descry.trainer.methods import ASMR, Descry

SHARE, RECOGNITION = 0.75, 0.5


@pytest.fixture
def method() -> Descry:
    return build("descry", person_size=16, person_share=SHARE, person_recognition=RECOGNITION, hubness=0.5).eval()


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
    embeddings, _ = method.encode_image(images)
    described = as_asmr(method).encode_image(images)[0]
    persons = F.normalize(method.person_space(method.person_backbone.pooled(images)), dim=1)
    expected = (1 - SHARE) * described @ described.T + SHARE * persons @ persons.T
    torch.testing.assert_close(embeddings @ embeddings.T, expected)


@torch.no_grad()
def test_scores_are_the_mean_of_what_both_networks_say(method):
    images = make_batch()["image"]
    asmr, seen = as_asmr(method), method.person_backbone.pooled(images)
    expected = asmr.attribute_scores(asmr.encode_image(images)[1]).clone()
    alone = build("descry", person_size=16, person_recognition=0, hubness=0.5).eval()
    alone.load_state_dict(method.state_dict(), strict=False)
    torch.testing.assert_close(alone.attribute_scores(alone.encode_image(images)[1]), expected)
    for group, classifier, pattern in zip(
        SCHEMA.slices.values(), method.second_classifiers, method.labels.patterns, strict=True
    ):
        for image, probabilities in enumerate(classifier(seen).softmax(dim=1)):
            for element, column in zip(range(group.start, group.stop), pattern.T, strict=True):
                second = sum(float(p) for p, has in zip(probabilities, column, strict=True) if has)
                expected[image, element] = (expected[image, element] + second) / 2
    torch.testing.assert_close(method.attribute_scores(method.encode_image(images)[1]), expected)


@torch.no_grad()
def test_the_features_of_an_image_and_of_its_mirror_image_are_averaged(method):
    images = make_batch()["image"]
    plain = (method.encode_image(images)[1] + method.encode_image(images.flip(3))[1]) / 2
    mirrored = build("descry", person_size=16, mirror=True).eval()
    mirrored.load_state_dict(method.state_dict())
    torch.testing.assert_close(mirrored.encode_image(images)[1], plain)
    torch.testing.assert_close(*(mirrored.encode_image(side)[1] for side in (images, images.flip(3))))


def test_each_network_learns_in_its_own_stages(method):
    """ASMR's gradient is the one that it has alone, and `persons` leaves ASMR as it is."""
    for stage in ("pretrain", "align"):
        gradients = []
        for network in (method, as_asmr(method)):
            network.zero_grad()
            network.begin_stage(stage)
            network.eval()
            network(make_batch())["loss"].backward()
            gradients.append([parameter.grad for parameter in network.backbone.parameters()])
        torch.testing.assert_close(*gradients)
        assert all(parameter.grad is None for parameter in method.person_backbone.parameters())
    method.zero_grad()
    method.begin_stage("persons")
    method(make_batch())["loss"].backward()
    assert all(parameter.grad is not None for parameter in method.person_backbone.parameters())
    assert all(parameter.grad is None for parameter in method.backbone.parameters())


def test_the_person_network_learns_the_losses_of_cerberus_and_of_the_groups(method):
    method.begin_stage("persons")
    batch = make_batch()
    represented = method.person_space(method.person_backbone.pooled(batch["image"]))
    places = [method.persons.tolist().index(person) for person in batch["person"].tolist()]
    identity = F.cross_entropy(method.person_classifier(represented), torch.tensor(places))
    triplets = []
    for anchor in range(4):
        apart = [(represented[anchor] - row).norm() for row in represented]
        same = [i for i in range(4) if i != anchor and places[i] == places[anchor]]
        other = [i for i in range(4) if places[i] != places[anchor]]
        triplets.append(F.softplus(max(apart[i] for i in same) - min(apart[i] for i in other)))
    features, groups = method.person_backbone.pooled(batch["image"]), method.labels.group_labels(batch["attributes"])
    classification = sum(
        F.cross_entropy(classifier(features), groups[:, group], ignore_index=IGNORE)
        for group, classifier in enumerate(method.second_classifiers)
    )
    losses = method(batch)
    torch.testing.assert_close(losses["identity"], identity.detach())
    torch.testing.assert_close(losses["classification"], classification.detach())
    expected = identity + torch.stack(triplets).mean() + RECOGNITION * classification
    torch.testing.assert_close(losses["loss"], expected, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_learnt_is_refused():
    labels = TrainingLabels.of(training_rows(), SCHEMA)
    with pytest.raises(ValueError, match="names no person"):
        Descry(Descry.Config(build("asmr").config.backbone), SCHEMA, labels)
    with pytest.raises(ValueError, match=r"person_share must lie in 0..1, below 1, got 1"):
        build("descry", person_share=1.0)
