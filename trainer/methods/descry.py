"""Descry's own method: ASMR, and beside it a network that tells persons apart; one embedding says both.

Stages `pretrain` and `align` are ASMR's. Stage `persons` trains a second image network with L_id of Cerberus (Eq. 5:
softmax over the persons and batch-hard triplets) on batches of P persons with K images each, and with group
classifiers of its own (ASMR's supplement, Eq. 1): PAR scores are the mean of two opinions. One network for all of it is
worse: what tells persons apart is what attributes leave open (docs/results/market1501.md).

The embedding is [sqrt(1 - s) e, sqrt(s) r]: e of ASMR and r of the person network, both unit rows; s is the share of r
in the similarity of two images. A description is [q / sqrt(1 - s), 0], so that its inner product with an image is
cos(q, e). What r is good for in a search by description is to find the images of one person, over which a gallery is
averaged (`neighbourhood.py`).
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descry.trainer.backbones import Backbone
from descry.trainer.labels import TrainingLabels
from descry.trainer.methods.asmr import ASMR, ASMRConfig, group_classifiers, group_loss, group_scores
from descry.trainer.reid_losses import batch_hard_triplet, person_loss
from descry.trainer.schema import AttributeSchema

PERSONS = "persons"


@dataclass(frozen=True)
class DescryConfig(ASMRConfig):
    """Constants of ASMR and those of the person network.

    Attributes:
        person_size: numbers of r.
        person_share: s, share of r in the similarity of two images, in 0..1, below 1.
        person_recognition: weight of the group classifiers in `persons`; 0 = none: PAR scores are ASMR's alone.
        mirror: whether an image's features are the mean of its own and of its mirror image's.
    """

    person_size: int = 256
    person_share: float = 0.75
    person_recognition: float = 1.0
    mirror: bool = False


class Descry(ASMR):
    """ASMR with a person network beside it."""

    Config = DescryConfig
    stages = (*ASMR.stages, PERSONS)
    config: DescryConfig
    persons: Tensor

    def __init__(
        self, config: DescryConfig, schema: AttributeSchema, labels: TrainingLabels, load_weights: bool = True
    ) -> None:
        """As ASMR's, with a network, a space and a classifier for the persons of the training split.

        Raises:
            ValueError: `group_weights` is not one of its two values, `person_share` is out of range, or no training
                person is known.
        """
        super().__init__(config, schema, labels, load_weights)
        if not 0 <= config.person_share < 1:
            raise ValueError(f"method.person_share must lie in 0..1, below 1, got {config.person_share}")
        if not len(labels.persons):
            raise ValueError(
                "the training split names no person, and this method learns to tell persons apart: use a dataset with "
                "person numbers, or method.name asmr"
            )
        self.register_buffer("persons", labels.persons)
        self.embedding_size += config.person_size
        self.person_backbone = Backbone(config.backbone, load_weights)
        # Its batch norm learns no shift: representations have mean 0, so that a cosine means something (BNNeck).
        self.person_space = nn.Sequential(
            nn.Linear(self.backbone.channels, config.person_size, bias=False), nn.BatchNorm1d(config.person_size)
        )
        self.person_classifier = nn.Linear(config.person_size, len(labels.persons), bias=False)
        self.second_classifiers = nn.ModuleList()
        if config.person_recognition:
            self.second_classifiers = group_classifiers(self.person_backbone.channels, labels)

    @property
    def labels(self) -> TrainingLabels:
        """See `Method`; with the persons."""
        return replace(super().labels, persons=self.persons)

    def parameter_groups(self, stage: str) -> dict[str, list[nn.Parameter]]:
        """See `Method`; those of ASMR, or of the person network."""
        if stage != PERSONS:
            return super().parameter_groups(stage)
        shift = cast(nn.BatchNorm1d, self.person_space[1]).bias
        space = [parameter for parameter in self.person_space.parameters() if parameter is not shift]
        classifiers = [*self.person_classifier.parameters(), *self.second_classifiers.parameters()]
        return {"image": [*self.person_backbone.parameters(), *space], "classifiers": classifiers}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Method`: the losses of ASMR; in `persons` `identity`, `triplet` and `classification`."""
        if self.stage != PERSONS:
            return super().forward(batch)
        features = self.person_backbone.pooled(batch["image"])
        with torch.autocast(features.device.type, enabled=False):
            return self._person_losses(features.float(), batch["person"], batch["attributes"])

    def _person_losses(self, features: Tensor, person: Tensor, attributes: Tensor) -> dict[str, Tensor]:
        labels, represented = self.labels, self.person_space(features)
        persons = labels.person_labels(person)
        identity = person_loss(self.person_classifier(represented), persons)
        triplet = batch_hard_triplet(represented, persons)
        losses = {"loss": identity + triplet, "identity": identity.detach(), "triplet": triplet.detach()}
        if self.config.person_recognition:
            classification = group_loss(self.second_classifiers, features, labels, attributes)
            losses["loss"] = losses["loss"] + self.config.person_recognition * classification
            losses["classification"] = classification.detach()
        return losses

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method`; the features are the pooled ones of ASMR's network, and those of the person network."""
        features, person_features = (self._pooled(network, images) for network in (self.backbone, self.person_backbone))
        share = self.config.person_share
        person = F.normalize(self.person_space(person_features), dim=1)
        embedding = torch.cat([(1 - share) ** 0.5 * self.embed(features), share**0.5 * person], dim=1)
        return embedding, torch.cat([features, person_features], dim=1)

    def attribute_scores(self, features: Tensor) -> Tensor:
        """See `Method`: the mean of what ASMR's network and the person network say."""
        own, second = features.split(self.backbone.channels, dim=1)
        scores = super().attribute_scores(own)
        if not self.config.person_recognition:
            return scores
        return (scores + group_scores(self.second_classifiers, second, self.labels)) / 2

    def _pooled(self, network: Backbone, images: Tensor) -> Tensor:
        features = network.pooled(images).float()
        return (features + network.pooled(images.flip(3)).float()) / 2 if self.config.mirror else features

    def encode_attributes(self, attributes: Tensor, known: Tensor) -> Tensor:
        """See `Method`: of norm 1 / sqrt(1 - s), 0 where the person network's part is."""
        described = super().encode_attributes(attributes, known) / (1 - self.config.person_share) ** 0.5
        return F.pad(described, (0, self.config.person_size))
