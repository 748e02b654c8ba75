"""Cerberus: semantic IDs, the two branches, alignment, search by parts, recognition, and a photo with a change."""

import math

import numpy as np
import pytest
import torch
from test_methods import SCHEMA, build, make_batch, training_rows
from torch.nn import functional

from descry.trainer.backbones import Backbone, BackboneConfig
from descry.trainer.datasets.market1501 import PAPER
from descry.trainer.labels import TrainingLabels
from descry.trainer.losses import IGNORE
from descry.trainer.methods import Cerberus
from descry.trainer.methods.cerberus_networks import BranchedBackbone, align_rows, layers_of, pool_parts
from descry.trainer.methods.semantic_ids import semantic_ids
from descry.trainer.reid_losses import prototype_regularization
from descry.trainer.schema import PARTS, UNKNOWN, AttributeGroup, AttributeSchema

PAIRS = AttributeSchema(
    "pairs",
    (
        AttributeGroup("hat", ("no", "yes"), "binary", "head"),
        AttributeGroup("hair", ("short", "long"), "binary", "head"),
        AttributeGroup("top", ("red", "blue", "white"), "choice", "upper"),
        AttributeGroup("sleeve", ("short", "long"), "binary", "upper"),
        AttributeGroup("bags", ("backpack", "handbag"), "multi", "carrying"),
    ),
)


def rows_of(*texts: str) -> np.ndarray:
    return np.array([[int(letter) for letter in text.replace(" ", "")] for text in texts], np.uint8)


# hat hair | red blue white sleeve | backpack handbag; the last top has no colour.
ROWS = rows_of("00 1000 00", "01 0101 10", "10 0011 10", "00 1001 00", "01 0000 00")
LABELS = TrainingLabels.of(ROWS, PAIRS, np.array([7, 7, 8, 9, 9]))


def build_pairs(**options) -> Cerberus:
    torch.manual_seed(0)
    config = Cerberus.Config(BackboneConfig("resnet18"), part_size=16, **options)
    return Cerberus(config, PAIRS, LABELS).eval()


def encode(*texts: str) -> torch.Tensor:
    return torch.from_numpy(rows_of(*texts)).float()


def test_semantic_ids_are_all_legal_combinations_of_a_part():
    ids = {one.part: one for one in semantic_ids(PAIRS, LABELS)}
    assert list(ids) == ["head", "upper", "carrying"], "no part without attributes"
    assert ids["head"].table.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    # Three colours, and none, which training has; each with both sleeves.
    assert len(ids["upper"].table) == 8 and [0, 0, 0, 1] in ids["upper"].table.tolist()
    assert ids["carrying"].table.tolist() == [[0, 0], [1, 0]], "of a set, the subsets that training has"


def test_seen_combinations_are_those_of_training():
    upper = semantic_ids(PAIRS, LABELS, "seen")[1]
    assert upper.table.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0], [1, 0, 0, 1]]


def test_a_part_with_too_many_combinations_is_refused():
    with pytest.raises(
        ValueError, match="the part 'upper' of pairs has 8 legal combinations of its attributes, more than 7"
    ):
        semantic_ids(PAIRS, LABELS, limit=7)


def test_the_persons_of_an_id_are_counted_once():
    head = semantic_ids(PAIRS, LABELS)[0]
    # 00: persons 7 and 9; 01: 7 and 9; 10: 8.
    assert head.count_persons(LABELS).tolist() == [2, 2, 1, 0]


def test_market_s_semantic_ids_cover_what_the_paper_counts():
    """4 hats and hairs, 8 colours and no colour by 2 sleeves, and so on: 66 of them in training (METHODS)."""
    schema = PAPER.schema
    rows = np.zeros((3, schema.size), np.uint8)
    labels = TrainingLabels.of(rows, schema, np.arange(3))
    sizes = {one.part: len(one.table) for one in semantic_ids(schema, labels)}
    # Every choice also has "none" here, as the rows are all zero.
    assert sizes == {"head": 4, "upper": 9 * 2, "lower": 10 * 2 * 2, "identity": 2 * 5, "carrying": 4}


def test_the_parameters_are_those_of_the_paper():
    """ResNet-50 to layer3[0], the rest twice, five projections: 49.3 M (Table 2's discussion)."""
    method = build("cerberus", "resnet50", shift=True)
    assert list(method.parts) == list(PARTS)
    assert sum(parameter.numel() for parameter in method.parameter_groups("end_to_end")["image"]) == 49_309_248


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100", "pvt_v2_b0"])
def test_both_branches_begin_as_the_network_that_they_were_copied_from(name):
    torch.manual_seed(0)
    plain = Backbone(BackboneConfig(name)).eval()
    torch.manual_seed(0)
    branched = BranchedBackbone(BackboneConfig(name)).eval()
    images = make_batch()["image"]
    with torch.no_grad():
        expected, maps = plain(images), branched.maps(images)
    assert all(torch.allclose(one, expected, atol=1e-5) for one in maps)
    first, second = branched.network.global_branch, branched.network.local_branch
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert pairs and not any(one is other for one, other in pairs)


def test_a_network_that_cannot_be_branched_is_refused():
    with pytest.raises(ValueError, match="Identity cannot be branched: choose a ResNet"):
        layers_of(torch.nn.Identity())


def slow_alignment(feature_map: torch.Tensor, threshold: float) -> torch.Tensor:
    """Section 3.1.1, image by image: crop to the first and last row above the threshold, resize bilinearly."""
    aligned = []
    for one in feature_map:
        heat = one.norm(dim=0).amax(dim=1)
        above = [row for row, value in enumerate(heat.tolist()) if value > threshold] or range(len(heat))
        crop = one[:, min(above) : max(above) + 1]
        aligned.append(functional.interpolate(crop[None], feature_map.shape[2:], mode="bilinear")[0])
    return torch.stack(aligned)


def test_alignment_crops_to_the_rows_with_a_person_and_resizes():
    torch.manual_seed(0)
    maps = torch.randn(5, 6, 8, 4)
    strength = torch.ones(5, 8)
    strength[1, :3] = strength[2, 5:] = strength[3, [0, 1, 3, 7]] = 0.01  # also a gap inside
    strength[4] = 0.01  # no row is above
    maps = maps * strength[:, None, :, None]
    aligned = align_rows(maps, threshold=0.5)
    torch.testing.assert_close(aligned, slow_alignment(maps, 0.5), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(aligned[[0, 4]], maps[[0, 4]])
    assert not torch.allclose(aligned[1], maps[1], atol=0.1)


def test_one_row_is_stretched_over_the_whole_map():
    maps = torch.zeros(1, 2, 8, 3)
    maps[0, :, 5] = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    torch.testing.assert_close(align_rows(maps, 0.5), maps[:, :, 5:6].expand(-1, -1, 8, -1))


def test_head_upper_and_lower_body_are_thirds_and_the_rest_sees_everything():
    local, whole = torch.zeros(2, 3, 9, 2), torch.full((2, 3, 9, 2), 7.0)
    for third in range(3):
        local[:, :, 3 * third : 3 * third + 3] = third
    pooled = dict(zip(PARTS, pool_parts(whole, local, list(PARTS)), strict=True))
    assert [pooled[part].unique().item() for part in PARTS] == [0, 1, 2, 7, 7]


def test_the_loss_is_equation_1():
    method = build("cerberus", "resnet18").train()
    losses = method(make_batch())
    expected = 5 * losses["semantic"] + losses["identity"] + losses["triplet"] + 0.001 * losses["regularization"]
    torch.testing.assert_close(losses["loss"].detach(), expected)


@pytest.mark.parametrize(
    ("option", "resting"),
    [
        ({"identity_weight": 0.0}, {"classifiers"}),
        ({"regularization_weight": 0.0}, {"directions"}),
        ({"regularization_weight": 0.0, "semantic_weight": 0.0}, {"directions", "prototypes"}),
    ],
)
def test_what_no_loss_reaches_is_not_trained(option, resting):
    groups = build("cerberus", **option).parameter_groups("end_to_end")
    assert {name for name, parameters in groups.items() if not parameters} == resting


def test_representations_have_no_common_direction_unless_a_shift_is_asked_for():
    batch = make_batch()
    for shift in (False, True):
        method = build("cerberus", shift=shift).train()
        trained = {id(parameter) for parameter in method.parameter_groups("end_to_end")["image"]}
        assert all((id(space.shift) in trained) == shift for space in method.spaces)
        for features in method._represent(*method.backbone.maps(batch["image"])):
            torch.testing.assert_close(features.mean(dim=0), torch.zeros_like(features[0]), atol=1e-5, rtol=0)


def test_without_persons_there_is_no_identification_loss():
    labels = TrainingLabels.of(training_rows(), SCHEMA)
    with pytest.raises(ValueError, match="names no person, .* set method.identity_weight to 0"):
        Cerberus(Cerberus.Config(BackboneConfig("resnet18")), SCHEMA, labels)
    without = Cerberus(Cerberus.Config(BackboneConfig("resnet18"), identity_weight=0.0), SCHEMA, labels)
    losses = without({**make_batch(), "person": torch.full((4,), -1)})
    assert losses["identity"] == losses["triplet"] == 0 and 0.1 < losses["semantic"] < 0.5
    assert without.everyone == 60, "every image stands for a person"


def test_two_images_are_as_alike_as_their_parts_on_average():
    method = build_pairs()
    with torch.no_grad():
        embedding, features = method.encode_image(make_batch()["image"])
        parts = method._represent(*method.backbone.maps(make_batch()["image"]))
    cosines = [functional.cosine_similarity(part[:1], part[1:2]).item() for part in parts]
    assert (embedding[0] @ embedding[1]).item() == pytest.approx(sum(cosines) / 3, abs=1e-6)
    assert torch.equal(embedding, features)


def prototype(method: Cerberus, part: str, *rows: str, weights=(1.0,)) -> torch.Tensor:
    """The unit mean of the unit prototypes of the IDs with these attributes."""
    space = method.parts[part]
    indices = [space.table.tolist().index([int(letter) for letter in row]) for row in rows]
    units = functional.normalize(space.prototypes.detach(), dim=1)[indices]
    return functional.normalize((torch.tensor(weights)[:, None] * units).sum(dim=0), dim=0)


def test_a_complete_description_is_its_prototypes():
    method = build_pairs()
    with torch.no_grad():
        query = method.encode_attributes(encode("01 0101 10"), torch.ones(1, 8))[0]
    expected = torch.cat([prototype(method, *one) for one in (("head", "01"), ("upper", "0101"), ("carrying", "10"))])
    torch.testing.assert_close(query, expected / math.sqrt(3))
    assert query.norm().item() == pytest.approx(1, abs=1e-6)


def test_a_partial_description_leaves_parts_out_and_averages_what_agrees():
    """Only a blue top is stated: two IDs agree, one of which person 7 has; the mean is over the stated part alone."""
    method = build_pairs()
    known = encode("00 1110 00")
    with torch.no_grad():
        query = method.encode_attributes(encode("11 0101 11"), known)[0]
        embedding, _ = method.encode_image(make_batch()["image"])
    head, upper, carrying = query.split(16)
    assert not head.any() and not carrying.any()
    expected = prototype(method, "upper", "0101", "0100", weights=(1.5, 0.5))
    torch.testing.assert_close(functional.normalize(upper, dim=0), expected)
    own = functional.normalize(embedding[:, 16:32], dim=1)
    torch.testing.assert_close(embedding @ query, own @ expected, msg="the cosine of the one stated part")


def test_an_unseen_combination_of_seen_attributes_has_its_own_prototype():
    method = build_pairs()
    with torch.no_grad():
        query = method.encode_attributes(encode("11 0101 10"), torch.ones(1, 8))[0]
    torch.testing.assert_close(functional.normalize(query[:16], dim=0), prototype(method, "head", "11"))


def test_an_id_outside_of_the_table_is_replaced_by_the_nearest():
    """Backpack and handbag: nobody has both. Nearest is the backpack alone, one attribute away."""
    method = build_pairs()
    with torch.no_grad():
        query = method.encode_attributes(encode("00 1000 11"), torch.ones(1, 8))[0]
    torch.testing.assert_close(functional.normalize(query[32:], dim=0), prototype(method, "carrying", "10"))


def at_prototypes(method: Cerberus, head: str, upper: str, carrying: str) -> torch.Tensor:
    """The embedding [1, D] of an image that meets these prototypes exactly."""
    parts = (("head", head), ("upper", upper), ("carrying", carrying))
    return (torch.cat([prototype(method, *one) for one in parts]) / math.sqrt(3))[None]


def test_the_nearest_prototypes_give_the_attributes():
    method = build_pairs()
    scores = method.attribute_scores(at_prototypes(method, "10", "0011", "10")).detach()
    assert (scores > 0.5).int().tolist() == [[1, 0, 0, 0, 1, 1, 1, 0]]
    assert scores[0, 2:5].sum() <= 1 + 1e-6, "colours exclude each other"


def test_scores_are_the_softmax_over_ids_summed_over_those_with_the_attribute():
    method = build_pairs()
    embedding = functional.normalize(torch.randn(2, 48, generator=torch.Generator().manual_seed(1)), dim=1)
    scores = method.attribute_scores(embedding).detach()
    for row in range(2):
        for part, start, columns in (
            ("head", 0, slice(0, 2)),
            ("upper", 16, slice(2, 6)),
            ("carrying", 32, slice(6, 8)),
        ):
            space = method.parts[part]
            unit = embedding[row, start : start + 16] * math.sqrt(3)
            units = functional.normalize(space.prototypes.detach(), dim=1)
            likelihood = [math.exp(10 * (unit @ one).item()) for one in units]
            expected = sum(
                weight / sum(likelihood) * ids.float() for weight, ids in zip(likelihood, space.table, strict=True)
            )
            torch.testing.assert_close(scores[row, columns], expected)


def test_calibration_finds_the_scale_of_what_it_sees():
    """Labels drawn from the softmax of a known scale: the fit returns it, and the scores follow."""
    method = build_pairs()
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(4000, 3, 16, generator=generator)
    embedding = (functional.normalize(embedding, dim=2) / math.sqrt(3)).flatten(1)
    attributes = torch.full((4000, 8), UNKNOWN, dtype=torch.uint8)
    space = method.parts["upper"]
    with torch.no_grad():
        space.scale.fill_(4.0)
        drawn = torch.multinomial(space.posterior(embedding[:, 16:32] * math.sqrt(3)), 1, generator=generator)[:, 0]
        attributes[:, 2:6] = space.table[drawn]
        space.scale.fill_(50.0)
        before = method.attribute_scores(embedding)
    after = method.calibrate(embedding, before, attributes)
    assert space.scale.item() == pytest.approx(4.0, rel=0.15)
    assert method.parts["head"].scale == 10, "nothing is known of the head: its scale stays"
    torch.testing.assert_close(after, method.attribute_scores(embedding).detach())


def test_a_photo_with_a_change_keeps_what_is_not_changed():
    """This person, but with a blue top: sleeves and the other parts stay the photo's."""
    method = build_pairs()
    photo = at_prototypes(method, "01", "1001", "10")
    with torch.no_grad():
        changed = method.change_query(photo, encode("00 0100 00"), encode("00 1110 00"))[0]
    assert torch.equal(changed[:16], photo[0, :16]) and torch.equal(changed[32:], photo[0, 32:])
    blue_long, blue_short = (prototype(method, "upper", row) for row in ("0101", "0100"))
    units = functional.normalize(method.parts["upper"].prototypes.detach(), dim=1)
    fit = torch.stack([prototype(method, "upper", "1001") @ one for one in (blue_long, blue_short)])
    weights = (10 * fit).softmax(dim=0)
    expected = functional.normalize(weights[0] * blue_long + weights[1] * blue_short, dim=0)
    torch.testing.assert_close(functional.normalize(changed[16:32], dim=0), expected)
    assert units.shape == (8, 16) and changed.norm().item() == pytest.approx(1, abs=1e-6)


def test_the_attention_adds_up_to_what_the_features_give():
    """Linear in the map: doubling the features doubles their share, and the shares and the constant are the norm."""
    method = build_pairs()
    images = make_batch()["image"]
    attention = method.part_attention(images)
    with torch.no_grad():
        maps = method.backbone.maps(images)
        parts = method._represent(*maps)
        constant = method._represent(*(torch.zeros_like(one) for one in maps))
    for index, (part, rest) in enumerate(zip(parts, constant, strict=True)):
        units = functional.normalize(part, dim=1)
        expected = part.norm(dim=1) - (rest * units).sum(dim=1)
        torch.testing.assert_close(attention[:, index].sum(dim=(1, 2)), expected, atol=1e-4, rtol=1e-4)


def test_the_regularization_of_five_thousand_ids_forms_no_pairs():
    prototypes = torch.randn(5000, 512, requires_grad=True)
    attributes = torch.randint(0, 2, (5000, 13), dtype=torch.uint8)
    directions = torch.randn(13, 512, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        prototype_regularization(prototypes, attributes, directions).backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 64 << 20, "a few tables of 5000 x 512; all pairs would be 51 GB"


def test_an_unknown_attribute_leaves_its_part_out_of_the_guidance():
    method = build_pairs().train()
    batch = {"image": make_batch(2)["image"], "person": torch.tensor([7, 8])}
    attributes = torch.from_numpy(ROWS[:2].copy())
    attributes[:, 2:6] = UNKNOWN
    assert (method.parts["upper"].labels(attributes) == IGNORE).all()
    method({**batch, "attributes": attributes})["loss"].backward()
    free = build_pairs(regularization_weight=0.0).train()
    free({**batch, "attributes": attributes})["loss"].backward()
    assert not free.parts["upper"].prototypes.grad.any() and free.parts["head"].prototypes.grad.any()
