"""What is particular to the Multi-task Transformer and to the PAR baseline."""

import math

import pytest
import torch
from test_methods import SCHEMA, build, make_batch, training_rows

from descry.trainer.losses import IGNORE, alignment_losses, attribute_losses, feedback_weights
from descry.trainer.methods.multitask import MultiTaskConfig, TokenTransformer, sinusoids
from descry.trainer.schema import UNKNOWN


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def recognition_by_hand(logits, labels, ratios, weighting):
    losses = []
    for row, stated in zip(logits, labels, strict=True):
        total = 0.0
        for logit, label, ratio in zip(row, stated, ratios, strict=True):
            if label == UNKNOWN:
                continue
            probability = sigmoid(logit)
            cross_entropy = -math.log(probability if label == 1 else 1 - probability)
            weight = {
                "label_dependent": math.exp(1 - ratio if label == 1 else ratio),
                "attribute": math.exp(-ratio),
                "none": 1.0,
            }[weighting]
            total += weight * cross_entropy
        losses.append(total)
    return losses


@pytest.mark.parametrize("weighting", ["label_dependent", "attribute", "none"])
def test_attribute_losses_equal_the_loop(weighting):
    torch.manual_seed(0)
    logits, ratios = torch.randn(6, 4, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    labels = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0], [UNKNOWN] * 4, [0, UNKNOWN, 1, 1], [1] * 4, [0] * 4]).byte()
    ours = attribute_losses(logits, labels, ratios, weighting=weighting)
    by_hand = recognition_by_hand(logits.tolist(), labels.tolist(), ratios.tolist(), weighting)
    assert ours.tolist() == pytest.approx(by_hand, rel=1e-12)
    assert ours[2] == 0


def test_attribute_losses_stay_finite_and_have_the_right_gradient():
    labels = torch.tensor([[0, 1, UNKNOWN]]).byte()
    ratios = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    huge = torch.tensor([[1e4, -1e4, 1e4]], dtype=torch.float64)
    assert torch.isfinite(attribute_losses(huge, labels, ratios)).all()
    logits = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: attribute_losses(given, labels, ratios), logits)


def test_feedback_weights_average_one_and_leave_out_what_has_no_loss():
    losses = torch.tensor([1.0, 3.0, 0.0, 8.0], requires_grad=True)
    kept = torch.tensor([True, True, False, True])
    weights = feedback_weights(losses, kept)
    assert weights.tolist() == pytest.approx([0.25, 0.75, 1.0, 2.0])
    assert weights[kept].mean() == pytest.approx(1.0) and not weights.requires_grad
    assert feedback_weights(torch.zeros(3), torch.ones(3, dtype=torch.bool)).tolist() == [1, 1, 1]
    assert feedback_weights(torch.ones(2), torch.zeros(2, dtype=torch.bool)).tolist() == [1, 1]


def test_further_negatives_only_raise_the_alignment_loss():
    torch.manual_seed(0)
    images, categories, more = torch.randn(5, 8), torch.randn(4, 8), torch.randn(3, 8)
    labels = torch.tensor([0, 1, IGNORE, 3, 2])
    alone = alignment_losses(images, categories, labels)
    joined = alignment_losses(images, torch.cat([categories, more]), labels)
    assert (joined >= alone).all() and (joined[labels != IGNORE] > alone[labels != IGNORE]).all()
    assert alone[2] == joined[2] == 0


def test_the_patches_are_projected_as_the_paper_flattens_them():
    """A strided convolution equals the linear layer on flattened 2 x 2 patches, position embeddings added."""
    torch.manual_seed(0)
    transformer = TokenTransformer(6, 3, MultiTaskConfig(width=24, heads=2, blocks=1))
    feature_map = torch.randn(2, 6, 4, 6)
    weight, bias = transformer.project.weight.flatten(1), transformer.project.bias
    positions = sinusoids(6, 24)
    tokens = []
    for row in (0, 2):
        for column in (0, 2, 4):
            patch = feature_map[:, :, row : row + 2, column : column + 2].flatten(1)
            tokens.append(patch @ weight.T + bias + positions[len(tokens)])
    expected = torch.stack(tokens, dim=1)
    torch.testing.assert_close(transformer.visual_tokens(feature_map), expected, atol=1e-5, rtol=1e-5)
    visual, attributes = transformer(feature_map)
    assert visual.shape == (2, 6, 24) and attributes.shape == (2, 3, 24)


def test_sinusoids_are_those_of_the_transformer():
    table = sinusoids(7, 10)
    for position in range(7):
        for dimension in range(10):
            angle = position / 10000 ** (2 * (dimension // 2) / 10)
            wanted = math.cos(angle) if dimension % 2 else math.sin(angle)
            assert table[position, dimension].item() == pytest.approx(wanted, abs=1e-5)


def test_a_map_without_a_patch_is_named():
    transformer = TokenTransformer(6, 3, MultiTaskConfig(width=24, heads=2, blocks=1))
    with pytest.raises(ValueError, match=r"feature map of \(2, 1\) has no 2 x 2 patch"):
        transformer(torch.randn(1, 6, 2, 1))


def test_additional_combinations_are_plausible_negatives_and_the_same_in_every_run():
    first, second = build("multitask", additional=50), build("multitask", additional=50)
    for method in (first, second):
        method.begin_stage("joint")
        method.eval()
    known = {tuple(row) for row in training_rows().tolist()}
    assert torch.equal(first.additional, second.additional) and len(first.additional) > 10
    assert not known & {tuple(row) for row in first.additional.tolist()}
    plain = build("multitask")
    plain.begin_stage("joint")
    plain.load_state_dict(first.state_dict())
    with torch.no_grad():
        with_more, without = first(make_batch()), plain.eval()(make_batch())
    assert with_more["alignment"] > without["alignment"]
    assert with_more["recognition"] == without["recognition"]


@pytest.mark.parametrize(
    ("feedback", "changed"), [("ma", {"alignment"}), ("par", {"recognition"}), ("both", {"alignment", "recognition"})]
)
def test_feedback_weighs_the_task_that_it_names(feedback, changed):
    results = []
    for option in ("none", feedback):
        method = build("multitask", feedback=option)
        method.begin_stage("joint")
        with torch.no_grad():
            results.append(method.eval()(make_batch()))
    plain, weighed = results
    assert {name for name in ("alignment", "recognition") if plain[name] != weighed[name]} == changed


def test_the_joint_stage_starts_from_the_backbone_of_the_baseline():
    method = build("multitask")
    assert method.parameter_groups("baseline")["image"][0] is method.parameter_groups("joint")["image"][0]
    joint = {id(one) for group in method.parameter_groups("joint").values() for one in group}
    assert not any(id(parameter) in joint for parameter in method.baseline.parameters())
    assert "group_weights" not in build("multitask", weight=0.0).parameter_groups("joint")


def test_the_baseline_embeds_a_description_as_itself():
    method = build("par_baseline").eval()
    stated = torch.from_numpy(training_rows(3)).float()
    known = torch.zeros_like(stated)
    assert not method.encode_attributes(stated, known).any()
    known[:, SCHEMA.slices["hat"]] = 1
    encoded = method.encode_attributes(stated, known)
    assert (encoded.nonzero()[:, 1] == SCHEMA.slices["hat"].start).all()
    torch.testing.assert_close(encoded.norm(dim=1), torch.ones(3))
