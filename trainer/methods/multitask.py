"""The Multi-task Transformer for attribute-based person retrieval (Specker, 2022).

Stage `baseline` trains the PAR baseline, whose backbone the method starts from. Stage `joint` cuts the last map into
2 x 2 patches, adds one token an attribute, and trains three transformer blocks with
L = L_PAR + lambda_MA * L_MA + lambda_ASMR * L_ASMR (Eq. 3.2): the attribute tokens are classified one by one, the
mean of the visual tokens is aligned with the attribute encoder of ASMR.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from descry.trainer.backbones import Backbone, BackboneConfig
from descry.trainer.combinations import PlausibleCombinations
from descry.trainer.labels import TrainingLabels
from descry.trainer.losses import (
    IGNORE,
    WEIGHTINGS,
    alignment_losses,
    attribute_losses,
    feedback_weights,
    mean_over,
)
from descry.trainer.methods.alignment import GROUP_WEIGHTS, encode_description, perceptron, semantic_margin
from descry.trainer.methods.method import Method, check_options
from descry.trainer.methods.par_baseline import AttributeClassifier
from descry.trainer.schema import AttributeSchema

FEEDBACK = ("none", "ma", "par", "both")


@dataclass(frozen=True)
class MultiTaskConfig:
    """Constants of the method; the defaults are the paper's for PETA where it states them.

    Attributes:
        backbone: the image network; its last stride stays.
        width, blocks, heads: of the transformer; the paper's width of 382 cannot be split over its 12 heads.
        patch: side of a patch of the last map.
        embedding_size: D.
        weighting: of L_PAR; see `imbalance_weights`.
        alignment_weight: lambda_MA.
        weight: lambda_ASMR; 0 leaves the term out.
        sigma, gamma, temperature, group_weights: as in ASMR.
        additional: number of additional plausible combinations that L_MA has as further negatives and L_ASMR as
            further categories (AAC); 0 = off.
        feedback: `ma` weighs each image's L_MA by its share of L_PAR, `par` its L_PAR by its share of L_MA, `both`.
        freeze_batch_norm: keep the backbone's running statistics in `joint`, as ASMR does.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(last_stride=2))
    width: int = 384
    blocks: int = 3
    heads: int = 12
    patch: int = 2
    embedding_size: int = 128
    weighting: str = "label_dependent"
    alignment_weight: float = 1.0
    weight: float = 4.0
    sigma: float = 12.0
    gamma: float = 0.2
    temperature: float = 0.0
    group_weights: str = "one_plus"
    additional: int = 0
    feedback: str = "none"
    freeze_batch_norm: bool = True


class TokenTransformer(nn.Module):
    """Feature map [B, C, H, W] -> visual states [B, V, d] and attribute states [B, N, d], V = patches of the map."""

    def __init__(self, channels: int, attributes: int, config: MultiTaskConfig) -> None:
        """Build projection, attribute tokens and pre-norm blocks (Fig. 2.1, Table 3.1)."""
        super().__init__()
        # A strided convolution is the linear projection of the flattened patches.
        self.project = nn.Conv2d(channels, config.width, config.patch, config.patch)
        self.attribute_tokens = nn.Parameter(torch.randn(attributes, config.width) * 0.02)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, qkv_bias=True) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        states = self.tokens(feature_map)
        for block in self.blocks:
            states = block(states)
        states = self.norm(states)
        visual = states.shape[1] - len(self.attribute_tokens)
        return states[:, :visual], states[:, visual:]

    def attention(self, feature_map: Tensor, block: int) -> Tensor:
        """Weights [B, V + N, V + N] with which a block mixes all tokens into each one (row), mean over heads."""
        states = self.tokens(feature_map)
        for earlier in self.blocks[:block]:
            states = earlier(states)
        chosen: Any = self.blocks[block]
        attention = chosen.attn
        projected = attention.qkv(chosen.norm1(states))
        query, key, _ = projected.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return (query @ key.transpose(2, 3) * attention.scale).softmax(dim=3).mean(dim=1)

    def tokens(self, feature_map: Tensor) -> Tensor:
        """What the first block receives [B, V + N, d]: visual tokens, then attribute tokens."""
        visual = self.visual_tokens(feature_map)
        attributes = self.attribute_tokens.to(visual.dtype).expand(visual.shape[0], -1, -1)
        return torch.cat([visual, attributes], dim=1)

    def visual_tokens(self, feature_map: Tensor) -> Tensor:
        """Projected patches with their position embeddings [B, V, d], row by row.

        Raises:
            ValueError: the map is smaller than a patch.
        """
        side = self.project.kernel_size[0]
        if min(feature_map.shape[2:]) < side:
            raise ValueError(
                f"a feature map of {tuple(feature_map.shape[2:])} has no {side} x {side} patch: use larger images, "
                "method.backbone.last_stride 1 or a smaller method.patch"
            )
        patches = self.project(feature_map).flatten(2).transpose(1, 2)
        return patches + sinusoids(patches.shape[1], patches.shape[2]).to(patches)


def sinusoids(count: int, width: int) -> Tensor:
    """Position embeddings [count, width] of "Attention is all you need", section 3.5."""
    position = torch.arange(count, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    return torch.stack([(position * rate).sin(), (position * rate).cos()], dim=2).flatten(1)[:, :width]


class MultiTask(Method):
    """Backbone, transformer, the heads of both tasks, and ASMR's attribute encoder."""

    Config = MultiTaskConfig
    stages = ("baseline", "joint")
    frozen_stages = ("joint",)
    additional: Tensor

    def __init__(
        self, config: MultiTaskConfig, schema: AttributeSchema, labels: TrainingLabels, load_weights: bool = True
    ) -> None:
        """Build the modules for `schema` and the categories of the training split.

        Raises:
            ValueError: a name in `config` is not one of the valid ones.
        """
        super().__init__(schema, labels)
        check_options(config, feedback=FEEDBACK, group_weights=GROUP_WEIGHTS, weighting=WEIGHTINGS)
        self.config = config
        self.stage = "joint"
        self.embedding_size = config.embedding_size
        self.backbone = Backbone(config.backbone, load_weights)
        self.baseline = AttributeClassifier(self.backbone.channels, schema.size)
        self.transformer = TokenTransformer(self.backbone.channels, schema.size, config)
        self.token_classifiers = nn.Parameter(torch.randn(schema.size, config.width) * 0.02)
        self.token_biases = nn.Parameter(torch.zeros(schema.size))
        self.image_head = perceptron(config.width, config.embedding_size)
        self.category_encoder = perceptron(schema.size, 512, 128, config.embedding_size)
        self.group_offsets = nn.Parameter(torch.empty(len(schema.groups)).uniform_(-0.25, 0.25))
        self.register_buffer("additional", self.categories[:0].clone(), persistent=False)

    def begin_stage(self, stage: str) -> None:
        """See `Method`; in `joint` also draws the additional combinations, the same in every run."""
        super().begin_stage(stage)
        if stage == "joint" and self.config.additional:
            labels = self.labels
            rows = labels.categories.repeat_interleave(labels.counts, dim=0).cpu().numpy()
            plausible = PlausibleCombinations(rows, self.schema).generate(self.config.additional, seed=0)
            self.additional = plausible.to(self.categories)

    def parameter_groups(self, stage: str) -> dict[str, list[nn.Parameter]]:
        """See `Method`; the group `group_weights` is empty without L_ASMR."""
        image = list(self.backbone.parameters())
        if stage == "baseline":
            return {"image": image, "classifiers": list(self.baseline.parameters())}
        heads = [self.token_classifiers, self.token_biases, *self.image_head.parameters()]
        return {
            "image": [*image, *self.transformer.parameters(), *heads],
            "category": list(self.category_encoder.parameters()),
            "group_weights": [self.group_offsets] if self.config.weight else [],
        }

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Method`: `recognition`, and in `joint` also `alignment` and `semantic_margin`."""
        if self.stage == "baseline":
            features = self.backbone.pooled(batch["image"])
            with torch.autocast(features.device.type, enabled=False):
                losses = self._recognition(self.baseline(features.float()), batch["attributes"])
            return {"loss": losses.mean(), "recognition": losses.mean().detach()}
        embeddings, logits = self.tasks(batch["image"])
        with torch.autocast(logits.device.type, enabled=False):
            return self._losses(embeddings.float(), logits.float(), batch["attributes"])

    def _recognition(self, logits: Tensor, attributes: Tensor) -> Tensor:
        return attribute_losses(logits, attributes, self.ratios, weighting=self.config.weighting)

    def _losses(self, embeddings: Tensor, logits: Tensor, attributes: Tensor) -> dict[str, Tensor]:
        config, labels = self.config, self.labels
        owner = labels.category_labels(attributes)
        described = torch.cat([self.categories, self.additional])
        encoded = self.category_encoder(described.float())
        recognition = self._recognition(logits, attributes)
        alignment = alignment_losses(embeddings, encoded, owner, sigma=config.sigma, gamma=config.gamma)
        aligned = owner != IGNORE
        both = config.feedback == "both"
        par_weights = feedback_weights(alignment, aligned) if both or config.feedback == "par" else 1.0
        ma_weights = feedback_weights(recognition, aligned) if both or config.feedback == "ma" else 1.0
        recognition = (recognition * par_weights).mean()
        alignment = mean_over(alignment * ma_weights, aligned)
        margin = alignment.new_zeros(())
        if config.weight:
            margin = semantic_margin(encoded, labels.group_labels(described), self.group_offsets, config)
        return {
            "loss": recognition + config.alignment_weight * alignment + config.weight * margin,
            "recognition": recognition.detach(),
            "alignment": alignment.detach(),
            "semantic_margin": margin.detach(),
        }

    def tasks(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Image embeddings [B, D], not yet of unit length, and attribute logits [B, N] of uint8 [B, 3, H, W]."""
        visual, attributes = self.transformer(self.backbone(images).float())
        logits = (attributes * self.token_classifiers).sum(dim=2) + self.token_biases
        return self.image_head(visual.mean(dim=1)), logits

    def attribute_attention(self, images: Tensor, block: int = 0) -> Tensor:
        """Where each attribute's token looks [B, N, h, w] in images uint8 [B, 3, H, W].

        These are the weights of the forward pass, averaged over heads. The first block is the one that answers "where":
        its visual tokens are patches of the image, those of later blocks are mixtures of all places. There the
        attribute tokens look alike, and attention rollout, the product over blocks, blurs what they differ in
        (docs/methods.md).

        Returns:
            One value a patch, row by row. Over h and w they sum to less than 1: the rest goes to attribute tokens.

        Raises:
            ValueError: no such block.
        """
        if not 0 <= block < self.config.blocks:
            raise ValueError(f"block {block} is not one of 0 to {self.config.blocks - 1}")
        feature_map = self.backbone(images).float()
        rows, columns = (side // self.config.patch for side in feature_map.shape[2:])
        attention = self.transformer.attention(feature_map, block)
        return attention[:, rows * columns :, : rows * columns].unflatten(2, (rows, columns))

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method`; the features are the logits of the attribute tokens [B, N]."""
        embeddings, logits = self.tasks(images)
        return F.normalize(embeddings.float(), dim=1), logits.float()

    def attribute_scores(self, features: Tensor) -> Tensor:
        """See `Method`."""
        return features.sigmoid()

    def encode_attributes(self, attributes: Tensor, known: Tensor) -> Tensor:
        """See `encode_description`."""
        return encode_description(self.category_encoder, attributes, known, self.categories, self.counts)
