"""One list of properties for every method."""

import warnings

import numpy as np
import pytest
import torch

from descry.trainer.backbones import Backbone, BackboneConfig
from descry.trainer.config import StageConfig
from descry.trainer.datasets.pedestrian_population import SCHEMA, draw_category
from descry.trainer.labels import TrainingLabels
from descry.trainer.methods import ASMR, METHODS
from descry.trainer.methods.completion import complete_attributes
from descry.trainer.optimizers import build_optimizers
from descry.trainer.schema import UNKNOWN

BACKBONES = ("resnet18", "mobilenetv2_100", "pvt_v2_b0")


def training_rows(count: int = 60) -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.stack([draw_category(generator) for _ in range(count)])


def build(name: str, backbone: str = "resnet18", **options):
    torch.manual_seed(0)
    config = METHODS[name].Config(backbone=BackboneConfig(name=backbone), **options)
    return METHODS[name](config, SCHEMA, TrainingLabels.of(training_rows(), SCHEMA, np.arange(60) // 2))


def make_batch(size: int = 4) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    images = torch.randint(0, 256, (size, 3, 64, 32), dtype=torch.uint8)
    return {"image": images, "attributes": torch.from_numpy(training_rows(size)), "person": torch.arange(size) // 2}


@pytest.fixture(params=sorted(METHODS))
def name(request) -> str:
    return request.param


@pytest.fixture
def method(name):
    return build(name)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_forward_gives_a_finite_loss_and_the_backward_reaches_all_trained_parameters(name, backbone):
    """Each update of a stage reaches exactly the parameters of its groups; together they reach all trained ones."""
    method = build(name, backbone)
    for stage in method.stages:
        method.begin_stage(stage)
        method.train()
        batch, together = make_batch(), set()
        groups = method.parameter_groups(stage)
        for update, changed in method.updates(stage).items():
            method.zero_grad()
            with method.updating(update):
                losses = method({**batch, "update": update, "seed": 0})
                losses["loss"].backward()
            batch.update(losses.pop("carried", {}))
            assert all(torch.isfinite(value) for value in losses.values())
            reached = {id(parameter) for parameter in method.parameters() if parameter.grad is not None}
            assert reached == {id(parameter) for group in changed for parameter in groups[group]}, (stage, update)
            together |= reached
        assert together == {id(parameter) for parameter in method.parameters() if parameter.requires_grad}


def test_an_unknown_stage_is_refused(method):
    with pytest.raises(ValueError, match=f"no stage 'warmup'; valid: {', '.join(method.stages)}"):
        method.begin_stage("warmup")


def test_embeddings_are_unit_rows_and_scores_probabilities(method):
    method.eval()
    embedding, features = method.encode_image(make_batch()["image"])
    assert embedding.shape == (4, method.embedding_size)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(4))
    scores = method.attribute_scores(features)
    assert scores.shape == (4, SCHEMA.size) and scores.min() >= 0 and scores.max() <= 1
    for group, where in SCHEMA:
        # The other methods classify each attribute on its own.
        if group.kind == "choice" and isinstance(method, ASMR):
            assert scores[:, where].sum(dim=1).max() <= 1 + 1e-5, group.name


# Of each method: a stage that learns attributes, and the gradient of what of it belongs to one attribute group.
PART_OF = {group.name: group.part for group in SCHEMA.groups}
CLASSIFIERS = {
    "asmr": ("pretrain", lambda method, group: method.classifiers[list(SCHEMA.slices).index(group)][0][-1].weight.grad),
    # Of the part that shows the group; L_reg, which sees no image, is left out.
    "cerberus": ("end_to_end", lambda method, group: method.parts[PART_OF[group]].prototypes.grad),
    "descry": ("align", lambda method, group: method.classifiers[list(SCHEMA.slices).index(group)][0][-1].weight.grad),
    "multitask": ("joint", lambda method, group: method.token_classifiers.grad[SCHEMA.slices[group]]),
    "par_baseline": ("recognize", lambda method, group: method.classifier[0].weight.grad[SCHEMA.slices[group]]),
    "sal": ("image", lambda method, group: method.networks.attribute_classifier.weight.grad[SCHEMA.slices[group]]),
}


def test_an_unknown_label_gives_no_gradient(name):
    """Of a group that is unknown in every image, nothing is learnt; of the next one, something is."""
    method = build(name, **({"regularization_weight": 0.0} if name == "cerberus" else {}))
    stage, gradient = CLASSIFIERS[name]
    method.begin_stage(stage)
    method.eval()
    batch = make_batch()
    batch["attributes"][:, SCHEMA.slices["hat"]] = UNKNOWN
    method(batch)["loss"].backward()
    assert gradient(method, "hat").abs().max() == 0
    assert gradient(method, "upper_color").abs().max() > 0


@pytest.mark.parametrize(("name", "stage"), [("asmr", "align"), ("descry", "align"), ("multitask", "joint")])
def test_the_last_stage_freezes_the_running_statistics_of_the_backbone(name, stage):
    method = build(name)
    method.begin_stage(stage)
    method.train()
    before = {key: value.clone() for key, value in method.backbone.state_dict().items() if "running" in key}
    method(make_batch())
    after = method.backbone.state_dict()
    assert before and all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_share_of_the_classifiers_gradient_can_reach_the_image_network():
    """With share s the gradient is that of the paper plus s times that of the classification alone."""
    gradients = {}
    for share in (0.0, 0.25, 1.0):
        method = build("asmr", joint=share)
        method.begin_stage("align")
        method.train()
        method(make_batch())["loss"].backward()
        gradients[share] = next(method.backbone.parameters()).grad.clone()
    full = gradients[1.0] - gradients[0.0]
    assert full.abs().max() > 1e-4
    torch.testing.assert_close(gradients[0.25] - gradients[0.0], 0.25 * full, atol=1e-4, rtol=1e-2)


def test_the_align_gradients_do_not_depend_on_the_classifiers():
    """ASMR's PAR head learns on detached features: the method's own gradients stay those of the paper."""
    method = build("asmr")
    gradients = []
    for scale in (1.0, 10.0):
        method.zero_grad()
        method.begin_stage("align")
        method.train()
        for parameter in method.classifiers.parameters():
            parameter.data.mul_(scale)
        method(make_batch())["loss"].backward()
        gradients.append([parameter.grad.clone() for parameter in method.backbone.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_traced_equals_eager_at_any_batch_size(name, backbone):
    method = build(name, backbone).eval()

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.method = method

        def forward(self, images, attributes, known):
            embedding, features = self.method.encode_image(images)
            return embedding, self.method.attribute_scores(features), self.method.encode_attributes(attributes, known)

    def inputs(size):
        stated = torch.from_numpy(training_rows(size)).float()
        return make_batch(size)["image"], stated, (torch.rand_like(stated) < 0.5).float()

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.freeze(torch.jit.trace(Encoder().eval(), inputs(2), check_trace=False))
        for size in (1, 2, 7):
            given = inputs(size)
            for ours, eager in zip(traced(*given), Encoder()(*given), strict=True):
                torch.testing.assert_close(ours, eager, atol=2e-5, rtol=1e-4)


def test_completions_keep_what_is_known_and_prefer_categories_that_agree():
    categories = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 1, 1]], dtype=torch.uint8)
    counts = torch.tensor([1, 100, 3])
    stated, known = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    completed = complete_attributes(stated, known, categories, counts)[0]
    assert completed.shape == (32, 4)
    assert (completed[:, :2] == stated[0, :2]).all()
    assert (completed[:, 3] == 1).all(), "the frequent second category contradicts the description"
    assert completed[:, 2].mean().item() == pytest.approx(3 / 4, abs=1 / 32)


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("asmr", {"group_weights": "one"}, "method.group_weights: 'one' is not one of one_plus, released"),
        ("multitask", {"group_weights": "one"}, "method.group_weights: 'one' is not one of one_plus, released"),
        ("multitask", {"feedback": "all"}, "method.feedback: 'all' is not one of none, ma, par, both"),
        ("multitask", {"weighting": "x"}, "method.weighting: 'x' is not one of label_dependent, attribute, none"),
        ("par_baseline", {"weighting": "x"}, "method.weighting: 'x' is not one of label_dependent, attribute, none"),
    ],
)
def test_a_wrong_option_is_named(name, option, message):
    with pytest.raises(ValueError, match=message):
        build(name, **option)


def test_the_group_weights_of_the_released_code_change_the_regulariser():
    paper, released = build("asmr"), build("asmr", group_weights="released")
    for method in (paper, released):
        method.begin_stage("align")
    first, second = (method.eval()(make_batch())["semantic_margin"] for method in (paper, released))
    assert first != second


@pytest.mark.parametrize(("name", "stage"), [("asmr", "align"), ("descry", "align"), ("multitask", "joint")])
def test_without_the_regulariser_its_group_weights_are_not_trained(name, stage):
    """The same configuration serves every lambda: the multiplier of the group weights stays valid at 0."""
    method = build(name, weight=0.0)
    assert method.parameter_groups(stage)["group_weights"] == []
    method.begin_stage(stage)
    optimizer = build_optimizers(method, StageConfig(stage, 1, multipliers={"group_weights": 5.0}))["all"]
    method(make_batch())["loss"].backward()
    optimizer.step()
    assert method.group_offsets.grad is None


@pytest.mark.parametrize(
    ("backbone", "rows"), [("resnet18", 16), ("resnet50", 16), ("mobilenetv2_100", 16), ("pvt_v2_b0", 16)]
)
def test_removing_the_last_stride_doubles_the_feature_map(backbone, rows):
    images = torch.zeros(1, 3, 256, 128, dtype=torch.uint8)
    with torch.no_grad():
        shape = Backbone(BackboneConfig(name=backbone, last_stride=1)).eval()(images).shape
        strided = Backbone(BackboneConfig(name=backbone, last_stride=2)).eval()(images).shape
    assert shape[2:] == (rows, rows // 2)
    assert strided[2:] == (rows // 2, rows // 4)


def test_backbone_weights_from_a_file(tmp_path):
    import safetensors.torch
    import timm

    reference = timm.create_model("resnet18", pretrained=False, num_classes=1000)
    path = tmp_path / "resnet18.safetensors"
    safetensors.torch.save_file(reference.state_dict(), str(path))
    backbone = Backbone(BackboneConfig(name="resnet18", weights=str(path)))
    assert torch.equal(backbone.network.conv1.weight, reference.conv1.weight)
    with pytest.raises(FileNotFoundError, match="missing.safetensors does not exist"):
        Backbone(BackboneConfig(name="resnet18", weights=str(tmp_path / "missing.safetensors")))
