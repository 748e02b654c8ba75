"""ASMR: attribute-based person search with an adaptive semantic margin regulariser (Jeong, Park, Kwak, ICCV 2021).

Stage `pretrain` trains the backbone with one softmax classifier per attribute group (supplement, Eq. 1). Stage
`align` pulls
every image to its person category within a margin and makes the categories' cosines follow their semantic affinity:
L = L_MA + lambda * L_ASMR (Eq. 1) over all training categories.

The classifiers also serve as PAR head. They keep following the backbone during `align`, on detached features, so that
the method's own gradients stay those of the paper.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descry.trainer.backbones import Backbone, BackboneConfig
from descry.trainer.labels import TrainingLabels
from descry.trainer.losses import masked_group_cross_entropy, modality_alignment
from descry.trainer.methods.alignment import GROUP_WEIGHTS, encode_description, perceptron, semantic_margin
from descry.trainer.methods.hubness import EXTRA, crowding, lift_descriptions, lift_images
from descry.trainer.methods.method import Method, check_options
from descry.trainer.schema import AttributeSchema


@dataclass(frozen=True)
class ASMRConfig:
    """Constants of the method; the defaults are the paper's for Market-1501.

    Attributes:
        backbone: the image network.
        embedding_size: D.
        sigma, gamma: scale and angular margin of L_MA.
        weight: lambda, the weight of L_ASMR (PETA 4, Market-1501 6, PA-100K 5); 0 = modality alignment alone.
        temperature: T of the semantic affinity; 0 = the number of groups (Market-1501's setting).
        group_weights: `one_plus` is the paper's w = 1 + W, `released` the Market code's w = W; W ~ U(-0.25, 0.25).
        freeze_batch_norm: keep the backbone's running statistics in `align`.
        joint: share of the classifiers' gradient that reaches the image network in `align`; 0 = as published, 1 = the
            sum of both losses (Multi-task Transformer, Eq. 3.2).
        hubness: beta of the correction for images that are near every description (`hubness.py`); 0 = as published.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    embedding_size: int = 128
    sigma: float = 12.0
    gamma: float = 0.2
    weight: float = 6.0
    temperature: float = 0.0
    group_weights: str = "one_plus"
    freeze_batch_norm: bool = True
    joint: float = 0.0
    hubness: float = 0.0


def group_classifiers(width: int, labels: TrainingLabels) -> nn.ModuleList:
    """A classifier an attribute group: features [B, width] -> logits over the group's patterns."""
    return nn.ModuleList(
        nn.Sequential(perceptron(width, 512, 128, len(pattern)), nn.BatchNorm1d(len(pattern)))
        for pattern in labels.patterns
    )


def group_loss(classifiers: nn.ModuleList, features: Tensor, labels: TrainingLabels, attributes: Tensor) -> Tensor:
    """Supplement, Eq. 1, over the known groups of `attributes` uint8 [B, N]."""
    logits = [classifier(features) for classifier in classifiers]
    return masked_group_cross_entropy(logits, labels.group_labels(attributes))


def group_scores(classifiers: nn.ModuleList, features: Tensor, labels: TrainingLabels) -> Tensor:
    """PAR scores [B, N] in 0..1: each group's softmax, summed over the patterns that have the element."""
    scores = [
        classifier(features).float().softmax(dim=1) @ pattern.float()
        for classifier, pattern in zip(classifiers, labels.patterns, strict=True)
    ]
    return torch.cat(scores, dim=1).clamp(0, 1)


class ASMR(Method):
    """The two encoders, the group classifiers and their losses; `train_stage` says which loss `forward` computes."""

    Config: ClassVar[type] = ASMRConfig
    stages: ClassVar[tuple[str, ...]] = ("pretrain", "align")
    frozen_stages = ("align",)

    def __init__(
        self, config: ASMRConfig, schema: AttributeSchema, labels: TrainingLabels, load_weights: bool = True
    ) -> None:
        """Build the modules for `schema` and the categories of the training split.

        Raises:
            ValueError: `group_weights` is not one of its two values.
        """
        super().__init__(schema, labels)
        check_options(config, group_weights=GROUP_WEIGHTS)
        self.config = config
        self.stage = "align"
        self.embedding_size = config.embedding_size + (EXTRA if config.hubness else 0)
        self.backbone = Backbone(config.backbone, load_weights)
        width = self.backbone.channels
        self.image_head = perceptron(width, 512, 128, config.embedding_size)
        self.category_encoder = perceptron(schema.size, 512, 128, config.embedding_size)
        self.classifiers = group_classifiers(width, labels)
        self.group_offsets = nn.Parameter(torch.empty(len(schema.groups)).uniform_(-0.25, 0.25))

    def parameter_groups(self, stage: str) -> dict[str, list[nn.Parameter]]:
        """See `Method`; the group `group_weights` is empty without L_ASMR."""
        image = list(self.backbone.parameters())
        classifiers = list(self.classifiers.parameters())
        if stage == "pretrain":
            return {"image": image, "classifiers": classifiers}
        return {
            "image": image + list(self.image_head.parameters()),
            "category": list(self.category_encoder.parameters()),
            "classifiers": classifiers,
            "group_weights": [self.group_offsets] if self.config.weight else [],
        }

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Method`: `classification`, and in `align` also `alignment` and `semantic_margin`."""
        features = self.backbone.pooled(batch["image"])
        # Mixed precision ends here: the losses are computed in float32.
        with torch.autocast(features.device.type, enabled=False):
            return self._losses(features.float(), batch["attributes"])

    def _losses(self, features: Tensor, attributes: Tensor) -> dict[str, Tensor]:
        if self.stage == "pretrain":
            classification = self.classification_loss(features, attributes)
            return {"loss": classification, "classification": classification.detach()}
        embeddings = self.category_encoder(self.categories.float())
        alignment = modality_alignment(
            self.image_head(features),
            embeddings,
            self.labels.category_labels(attributes),
            sigma=self.config.sigma,
            gamma=self.config.gamma,
        )
        margin = alignment.new_zeros(())
        if self.config.weight:
            group_labels = self.labels.group_labels(self.categories)
            margin = semantic_margin(embeddings, group_labels, self.group_offsets, self.config)
        joint = self.config.joint
        shared = features * joint + features.detach() * (1 - joint)
        classification = self.classification_loss(shared, attributes)
        return {
            "loss": alignment + self.config.weight * margin + classification,
            "alignment": alignment.detach(),
            "semantic_margin": margin.detach(),
            "classification": classification.detach(),
        }

    def classification_loss(self, features: Tensor, attributes: Tensor) -> Tensor:
        """See `group_loss`, of pooled features [B, F]."""
        return group_loss(self.classifiers, features, self.labels, attributes)

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method`; the features are the pooled ones."""
        features = self.backbone.pooled(images).float()
        return self.embed(features), features

    def embed(self, features: Tensor) -> Tensor:
        """Unit embedding [B, D] of pooled features [B, F]."""
        units = F.normalize(self.image_head(features).float(), dim=1)
        if self.config.hubness:
            categories = F.normalize(self.category_encoder(self.categories.float()).float(), dim=1)
            units = lift_images(units, crowding(units, categories), self.config.hubness)
        return units

    def attribute_scores(self, features: Tensor) -> Tensor:
        """See `group_scores`."""
        return group_scores(self.classifiers, features, self.labels)

    def encode_attributes(self, attributes: Tensor, known: Tensor) -> Tensor:
        """See `encode_description`."""
        units = encode_description(self.category_encoder, attributes, known, self.categories, self.counts)
        return lift_descriptions(units) if self.config.hubness else units
