"""What is particular to the Multi-task Transformer and to the PAR baseline."""

import math

import pytest
import torch
from test_losses import BITS, EXACT, RATIOS, normal
from test_methods import SCHEMA, build, make_batch, training_rows

from descry.trainer.losses import IGNORE, alignment_losses, attribute_losses, feedback_weights
from descry.trainer.methods.multitask import MultiTaskConfig, TokenTransformer, sinusoids
from descry.trainer.schema import UNKNOWN


def recognition_by_hand(logits, labels, ratios, weighting):
    losses = []
    for row, stated in zip(logits, labels, strict=True):
        total = 0.0
        for logit, label, ratio in zip(row, stated, ratios, strict=True):
            if label != UNKNOWN:
                probability = 1 / (1 + math.exp(-logit))
                weight = {
                    "label_dependent": math.exp(1 - ratio if label == 1 else ratio),
                    "attribute": math.exp(-ratio),
                    "none": 1.0,
                }[weighting]
                total -= weight * math.log(probability if label == 1 else 1 - probability)
        losses.append(total)
    return losses


@pytest.mark.parametrize("weighting", ["label_dependent", "attribute", "none"])
@pytest.mark.parametrize("rows", [1, 6])
def test_attribute_losses_equal_the_loop(weighting, rows):
    logits = normal(23, rows, 4).requires_grad_()
    ours = attribute_losses(logits, BITS[:rows], RATIOS, weighting=weighting)
    expected = recognition_by_hand(logits.tolist(), BITS[:rows].tolist(), RATIOS.tolist(), weighting)
    assert ours.tolist() == pytest.approx(expected, **EXACT)
    ours.sum().backward()
    assert torch.equal(logits.grad != 0, BITS[:rows] != UNKNOWN)


def test_attribute_losses_known_values():
    """A logit of 0 costs log 2 times its weight."""
    labels, ratios = torch.tensor([[1], [0], [UNKNOWN]]).byte(), torch.tensor([0.25])
    losses = attribute_losses(torch.zeros(3, 1), labels, ratios)
    assert losses.tolist() == pytest.approx([math.exp(0.75) * math.log(2), math.exp(0.25) * math.log(2), 0])
    with pytest.raises(ValueError, match="form 'focal' is not one of"):
        attribute_losses(torch.zeros(3, 1), labels, ratios, weighting="focal")


def test_feedback_weights_average_one_and_leave_out_what_has_no_loss():
    losses = torch.tensor([1.0, 3.0, 0.0, 8.0], requires_grad=True)
    kept = torch.tensor([True, True, False, True])
    weights = feedback_weights(losses, kept)
    assert weights.tolist() == pytest.approx([0.25, 0.75, 1.0, 2.0])
    assert weights[kept].mean() == pytest.approx(1.0) and not weights.requires_grad
    everyone = torch.ones(3, dtype=torch.bool)
    assert feedback_weights(torch.zeros(3), everyone).tolist() == [1, 1, 1]
    assert feedback_weights(torch.ones(2), torch.zeros(2, dtype=torch.bool)).tolist() == [1, 1]
    assert feedback_weights(torch.tensor([7.0]), torch.tensor([True])).tolist() == [1]
    for scale in (1e-30, 1e30):
        assert feedback_weights(scale * torch.tensor([1.0, 2.0, 3.0]), everyone).tolist() == pytest.approx(
            [0.5, 1, 1.5]
        )


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


def attention_of_forward(method, images, index):
    """What a block's softmax gave inside `encode_image` [B, heads, tokens, tokens]: timm's unfused form."""
    attention, seen = method.transformer.blocks[index].attn, []
    attention.fused_attn = False
    attention.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    method.encode_image(images)
    return seen[0]


def attention_by_hand(method, images, index):
    """The same from queries and keys, head by head, of the states that the block receives."""
    block, states = method.transformer.blocks[index], []
    hook = block.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0]))
    method.encode_image(images)
    hook.remove()
    width, heads = method.config.width, method.config.heads
    size = width // heads
    norm = block.norm1
    projected = torch.nn.functional.layer_norm(states[0], (width,), norm.weight, norm.bias, norm.eps)
    projected = projected @ block.attn.qkv.weight.T + block.attn.qkv.bias
    total = 0
    for head in range(heads):
        query = projected[..., head * size : (head + 1) * size]
        key = projected[..., width + head * size : width + (head + 1) * size]
        scores = torch.einsum("bid,bjd->bij", query, key) / math.sqrt(size)
        total = total + scores.exp() / scores.exp().sum(dim=2, keepdim=True)
    return total / heads


@pytest.mark.parametrize("index", [0, 2])
@torch.no_grad()
def test_the_attention_maps_are_what_the_forward_pass_used(index):
    method = build("multitask", patch=1).eval()
    images = torch.randint(0, 256, (3, 3, 128, 64), dtype=torch.uint8)
    images[1, :, :64] = 0
    for block in method.transformer.blocks:  # sharper than at random, so that rows differ
        block.attn.qkv.weight.mul_(6)
    full = method.transformer.attention(method.backbone(images).float(), index)
    maps = method.attribute_attention(images, index)
    assert maps.shape == (3, SCHEMA.size, 8, 4)
    torch.testing.assert_close(full.sum(dim=2), torch.ones(3, 32 + SCHEMA.size))
    assert torch.equal(maps.flatten(2), full[:, 32:, :32])
    assert maps.flatten(2).std(dim=2).max() > 0.01
    torch.testing.assert_close(full, attention_by_hand(method, images, index), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(full, attention_of_forward(method, images, index).mean(dim=1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("block", [-1, 3])
def test_a_block_that_is_not_there_is_named(block):
    with pytest.raises(ValueError, match=f"block {block} is not one of 0 to 2"):
        build("multitask").attribute_attention(make_batch()["image"], block)


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


def test_the_baseline_embeds_a_description_as_itself():
    method = build("par_baseline").eval()
    stated = torch.from_numpy(training_rows(3)).float()
    known = torch.zeros_like(stated)
    assert not method.encode_attributes(stated, known).any()
    known[:, SCHEMA.slices["hat"]] = 1
    encoded = method.encode_attributes(stated, known)
    assert (encoded.nonzero()[:, 1] == SCHEMA.slices["hat"].start).all()
    torch.testing.assert_close(encoded.norm(dim=1), torch.ones(3))
