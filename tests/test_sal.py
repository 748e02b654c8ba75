"""SAL: each update's loss against the paper's formulas, and what each update may change."""

import math

import pytest
import torch
from test_methods import build, make_batch, training_rows
from torch.nn import functional

from descry.trainer.datasets.pedestrian_population import SCHEMA
from descry.trainer.losses import IGNORE
from descry.trainer.methods.sal_networks import BatchNorm
from descry.trainer.methods.sal_updates import ORDERS, Iteration
from descry.trainer.schema import UNKNOWN

RELEASED = {
    "order": "released", "adversarial": "double_sigmoid", "distance": "mean_square", "fake_weight": 1.0,
    "smoothing": 0.1, "unseen_form": "released",
}  # fmt: skip
# Names of what each update changes, as prefixes of the names of parameters.
IMAGE = ("backbone.", "projection.", "networks.image_encoder.")
CLASSIFIERS = ("networks.attribute_classifier.", "networks.category_classifier.")
ATTRIBUTE = ("networks.attribute_extractor.", "networks.attribute_encoder.")
CHANGED = {
    "image_branch": (*IMAGE, *CLASSIFIERS),
    "attribute_branch": (*ATTRIBUTE, *CLASSIFIERS),
    "embed": (*IMAGE, *ATTRIBUTE, *CLASSIFIERS),
    "synthesis_discriminator": ("networks.synthesis_discriminator.",),
    "generators": ("networks.attribute_generator.", "networks.visual_generator."),
    "alignment_discriminator": ("networks.alignment_discriminator.",),
    "encoders": ("networks.image_encoder.", "networks.attribute_encoder."),
    "attribute_encoder": ("networks.attribute_encoder.",),
}


def distance(first, second, squared=False):
    """Mean over the pairs of rows of the norm of their difference, or mean square."""
    total = 0.0
    for row, other in zip(first.tolist(), second.tolist(), strict=True):
        square = sum((a - b) ** 2 for a, b in zip(row, other, strict=True))
        total += square / len(row) if squared else math.sqrt(square)
    return total / len(first)


def said(discriminator, rows, real, released=False):
    """What a discriminator, or the generator that says `real`, pays for rows, in a loop."""
    total = 0.0
    for logit in discriminator(rows).tolist():
        output = 1 / (1 + math.exp(-logit))
        if released:
            output = 1 / (1 + math.exp(-output))
        target = 1.0 if real else 0.1 * released
        total -= target * math.log(output) + (1 - target) * math.log(1 - output)
    return total / len(rows)


def classified(networks, embeddings, attributes, labels, smoothing):
    """L_cat + L_att of rows, in a loop."""
    category, attribute, found = 0.0, 0.0, 0
    scores, logits = networks.category_classifier(embeddings), networks.attribute_classifier(embeddings)
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        if label != IGNORE:
            total = math.log(sum(math.exp(value) for value in row))
            spread = sum(total - value for value in row) / len(row)
            category += (1 - smoothing) * (total - row[label]) + smoothing * spread
            found += 1
    for row, wanted in zip(logits.tolist(), attributes.tolist(), strict=True):
        for value, label in zip(row, wanted, strict=True):
            target = (1 - smoothing) * label + smoothing / len(row)
            attribute += target * math.log1p(math.exp(-value)) + (1 - target) * math.log1p(math.exp(value))
    return category / found + attribute / len(embeddings)


@pytest.fixture(params=["paper", "released"])
def iteration(request):
    """One update's view of a batch of five images and five new descriptions, and the form it is in."""
    options = RELEASED if request.param == "released" else {}
    method = build("sal", **options).eval()
    method.begin_stage("symbiosis")
    attributes = torch.from_numpy(training_rows(5))
    # Far from the centre: a loss of small values would not tell a norm from a square.
    tensors = {"attributes": attributes, "visual": 3 * torch.randn(5, 512), **method._draw(attributes, seed=3)}
    with torch.no_grad():
        for parameter in method.networks.parameters():
            parameter.mul_(2)
        yield (
            Iteration(method.config, method.networks, method.labels, "symbiosis", tensors),
            request.param == "released",
        )


def features(iteration):
    """f_v, f_a, synthetic f_v, synthetic f_a, and the networks."""
    networks, tensors = iteration.networks, iteration.tensors
    semantic = networks.attribute_extractor(tensors["descriptions"])
    visual = networks.visual_generator(torch.cat([semantic, tensors["noise"]], dim=1))
    return tensors["visual"], semantic, visual, networks.attribute_generator(tensors["visual"]), networks


def test_the_synthesis_discriminator_pays_for_three_kinds_of_pairs(iteration):
    """Eq. 4, with the new descriptions among f_a."""
    iteration, released = iteration
    visual, semantic, made_visual, made_semantic, networks = features(iteration)
    judge = networks.synthesis_discriminator
    expected = said(judge, torch.cat([semantic[:5], visual], dim=1), True, released)
    fake = said(judge, torch.cat([semantic, made_visual], dim=1), False, released)
    fake += said(judge, torch.cat([made_semantic, visual], dim=1), False, released)
    expected += (1.0 if released else 0.5) * fake
    assert iteration.synthesis_discriminator()["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_the_generators_pay_for_being_told_apart_the_cycle_and_the_consistency(iteration):
    """Eq. 4-7."""
    iteration, released = iteration
    visual, semantic, made_visual, made_semantic, networks = features(iteration)
    judge, see, read = networks.synthesis_discriminator, networks.image_encoder, networks.attribute_encoder
    game = said(judge, torch.cat([semantic, made_visual], dim=1), True, released)
    game += said(judge, torch.cat([made_semantic, visual], dim=1), True, released)
    cycle = distance(networks.attribute_generator(made_visual), semantic, released)
    consistency = distance(read(made_semantic), see(visual), released)
    consistency += distance(see(made_visual), read(semantic), released)
    consistency += distance(read(made_semantic), read(semantic[:5]), released)
    consistency += distance(see(made_visual[:5]), see(visual), released)
    losses = iteration.generators()
    assert losses["synthesis"].item() == pytest.approx((1.0 if released else 0.5) * game, rel=1e-4)
    assert losses["cycle"].item() == pytest.approx(cycle, rel=1e-4)
    assert losses["consistency"].item() == pytest.approx(consistency, rel=1e-4)
    expected = losses["synthesis"] + losses["cycle"] + losses["consistency"]
    torch.testing.assert_close(losses["loss"], expected)


def test_the_alignment_discriminator_and_its_generator(iteration):
    """Eq. 8 and 9: images are real, descriptions fake."""
    iteration, released = iteration
    visual, semantic, made_visual, made_semantic, networks = features(iteration)
    judge, see, read = networks.alignment_discriminator, networks.image_encoder, networks.attribute_encoder
    images = [said(judge, see(rows), True, released) for rows in (visual, made_visual)]
    fake, fooled = (
        [said(judge, read(rows), real, released) for rows in (semantic, made_semantic)] for real in (False, True)
    )
    assert iteration.alignment_discriminator()["loss"].item() == pytest.approx(sum(images + fake), rel=1e-4)
    assert iteration.attribute_encoder()["loss"].item() == pytest.approx(sum(fooled), rel=1e-4)


def test_the_embedding_losses(iteration):
    """Eq. 1-3 and 10; a new description has attributes and no category."""
    iteration, released = iteration
    visual, semantic, made_visual, made_semantic, networks = features(iteration)
    see, read, smoothing = networks.image_encoder, networks.attribute_encoder, 0.1 * released
    known = iteration.labels.category_labels(iteration.tensors["attributes"])
    labels = torch.cat([known, torch.full((5,), IGNORE)])
    described = iteration.tensors["descriptions"]
    images = classified(networks, see(visual), described[:5], known, smoothing)
    descriptions = classified(networks, read(semantic), described, labels, smoothing)
    made = classified(networks, read(made_semantic), described[:5], known, smoothing)
    if released:
        seen = classified(networks, see(made_visual[:5]), described[:5], known, smoothing)
        assert iteration.image_branch()["loss"].item() == pytest.approx((images + seen) / 2, rel=1e-4)
        assert iteration.attribute_branch()["loss"].item() == pytest.approx((descriptions + made) / 2, rel=1e-4)
    else:
        assert iteration.embed()["loss"].item() == pytest.approx(images + descriptions, rel=1e-4)
        expected = classified(networks, see(made_visual), described, labels, smoothing) + made
        losses = iteration.encoders()
        assert (losses["loss"] - losses["alignment"]).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("options", "stage"), [({}, "symbiosis"), (RELEASED, "symbiosis"), ({}, "image")])
def test_each_update_changes_its_own_parameters_alone(options, stage):
    method = build("sal", **options)
    method.begin_stage(stage)
    method.train()
    batch = make_batch(6)
    for update in method.updates(stage):
        before = {name: value.clone() for name, value in method.state_dict().items()}
        with method.updating(update):
            losses = method({**batch, "update": update, "seed": 1})
            losses["loss"].backward()
        batch.update(losses["carried"])
        trained = [parameter for parameter in method.parameters() if parameter.grad is not None]
        torch.optim.SGD(trained, lr=0.1).step()
        method.zero_grad()
        parameters = dict(method.named_parameters())
        after = method.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        for name in parameters:
            # A bias in front of a batch norm has no effect, and no gradient but rounding.
            assert name.startswith(CHANGED[update]) or name not in changed, f"{update} changed {name}"
        weights = {name for name in changed if name.endswith("weight")}
        assert {prefix for prefix in CHANGED[update] if any(name.startswith(prefix) for name in weights)} == set(
            CHANGED[update]
        )


def test_the_statistics_of_the_other_gan_rest():
    """Encoders keep their running statistics while the synthesis-GAN learns, generators theirs otherwise."""
    method = build("sal")
    method.begin_stage("symbiosis")
    method.train()
    batch = make_batch(6)
    for update in method.updates("symbiosis"):
        before = {name: value.clone() for name, value in method.named_buffers() if "running" in name}
        with method.updating(update):
            batch.update(method({**batch, "update": update})["carried"])
        moved = {name for name, value in method.named_buffers() if "running" in name and not value.equal(before[name])}
        synthesis = update in ("synthesis_discriminator", "generators")
        assert any("generator" in name for name in moved) == synthesis
        assert any("encoder" in name for name in moved) != synthesis
        assert any("backbone" in name for name in moved) == (update == "embed"), "one pass through the backbone"


def test_the_order_of_the_updates():
    assert list(build("sal").updates("symbiosis")) == [
        "embed", "synthesis_discriminator", "generators", "alignment_discriminator", "encoders",
    ]  # fmt: skip
    assert list(build("sal", **RELEASED).updates("symbiosis")) == [
        "synthesis_discriminator", "generators", "alignment_discriminator", "attribute_encoder", "image_branch",
        "attribute_branch",
    ]  # fmt: skip


def test_what_the_ablations_leave_out():
    assert list(build("sal", synthesis=False).updates("symbiosis")) == [
        "embed", "alignment_discriminator", "attribute_encoder",
    ]  # fmt: skip
    assert list(build("sal", augmentation=False).updates("symbiosis"))[-1] == "attribute_encoder"
    method = build("sal", consistency=False, unseen=False)
    method.begin_stage("symbiosis")
    assert "consistency" not in method({**make_batch(), "update": "generators"})
    assert method({**make_batch(), "update": "embed"})["carried"]["descriptions"].shape[0] == 4
    method.begin_stage("synthesis")
    assert not {"image", "image_encoder"} & method.parameter_groups("synthesis").keys()


def test_new_descriptions_and_noise_are_drawn_from_the_seed_alone():
    method = build("sal")
    method.begin_stage("symbiosis")
    attributes = make_batch()["attributes"]
    first = method._draw(attributes, seed=5)
    torch.manual_seed(99)
    again, other = method._draw(attributes, seed=5), method._draw(attributes, seed=6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["noise"], other["noise"])
    assert first["descriptions"].shape == (8, SCHEMA.size) and first["noise"].shape == (8, 400)
    assert torch.equal(first["descriptions"][:4], attributes.float())


def test_an_incomplete_label_is_completed_from_training_and_keeps_what_is_known():
    method = build("sal")
    method.begin_stage("embed")
    attributes = make_batch(8)["attributes"]
    where = SCHEMA.slices["upper_color"]
    attributes[:, where] = UNKNOWN
    described = method._draw(attributes, seed=0)["descriptions"]
    known = attributes != UNKNOWN
    assert torch.equal(described[known], attributes[known].float())
    assert (described[:, where].sum(dim=1) == 1).all(), "a colour each, as in training"


def test_the_groups_of_one_value_are_given_by_name():
    method = build("sal", unseen_exclusive=("upper_color", "lower_color"))
    method.begin_stage("symbiosis")
    combinations = method.combinations
    assert [members.tolist() for members in combinations.exclusive] == [
        list(range(SCHEMA.slices[name].start, SCHEMA.slices[name].stop)) for name in ("upper_color", "lower_color")
    ]
    with pytest.raises(ValueError, match="the schema has no group 'hue'; valid: "):
        build("sal", unseen_exclusive=("hue",)).begin_stage("symbiosis")


def test_features_and_noise_reach_the_synthetic_images():
    """One description, two rows of noise, two images."""
    method = build("sal").eval()
    semantic, noise = torch.zeros(2, 512), torch.randn(2, 400)
    rows = method.networks.visual_generator(torch.cat([semantic, noise], dim=1))
    assert not torch.allclose(rows[0], rows[1]) and rows.abs().max() <= 1


def test_batch_norm_takes_rows_of_any_shape():
    torch.manual_seed(0)
    ours, theirs = BatchNorm(6), torch.nn.BatchNorm1d(6)
    rows = torch.randn(4, 3, 6)
    expected = theirs(rows.flatten(0, 1)).view(4, 3, 6)
    torch.testing.assert_close(ours(rows), expected)
    torch.testing.assert_close(ours.eval()(rows), theirs.eval()(rows.flatten(0, 1)).view(4, 3, 6))


def test_the_par_head_is_the_attribute_classifier_of_the_common_space():
    method = build("sal").eval()
    unit, embedding = method.encode_image(make_batch()["image"])
    torch.testing.assert_close(unit, functional.normalize(embedding, dim=1))
    expected = method.networks.attribute_classifier(embedding).sigmoid()
    torch.testing.assert_close(method.attribute_scores(embedding), expected)


@pytest.mark.parametrize("option", ["order", "adversarial", "game", "distance", "unseen_form"])
def test_a_wrong_option_is_named(option):
    with pytest.raises(ValueError, match=f"method.{option}: 'x' is not one of "):
        build("sal", **{option: "x"})


def test_every_stage_has_an_order():
    for order in ORDERS.values():
        assert tuple(order) == build("sal").stages
