"""Descry's own method: ASMR whose image network also learns to tell persons apart, and whose embedding says both.

Stage `pretrain` trains the image network with the group classifiers of ASMR (supplement, Eq. 1) and, on batches of
P persons with K images each, with L_id of Cerberus (Eq. 5): identity makes a network look at what no label names (Lin
et al., *Improving person re-identification by attribute and identity learning*, 2019). Stage `align` is ASMR's. There
the person space keeps following the image network on detached features, as the classifiers do.

The embedding is [sqrt(1 - s) e, sqrt(s) r]: e of ASMR and r, what tells persons apart, both unit rows; s is the share
of r in the similarity of two images. A description is [q / sqrt(1 - s), 0], so that its inner product with an image is
cos(q, e).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descry.trainer.labels import TrainingLabels
from descry.trainer.methods.asmr import ASMR, ASMRConfig
from descry.trainer.reid_losses import batch_hard_triplet, person_loss
from descry.trainer.schema import AttributeSchema


@dataclass(frozen=True)
class DescryConfig(ASMRConfig):
    """Constants of ASMR and those of the person space.

    Attributes:
        person_size: numbers of r.
        person_share: s, share of r in the similarity of two images, in 0..1, below 1.
        person_weight: of L_id.
        mirror: whether an image's features are the mean of its own and of its mirror image's.
    """

    person_size: int = 256
    person_share: float = 0.75
    person_weight: float = 1.0
    mirror: bool = False


class Descry(ASMR):
    """ASMR with a person space beside its embedding."""

    Config = DescryConfig
    config: DescryConfig
    persons: Tensor

    def __init__(
        self, config: DescryConfig, schema: AttributeSchema, labels: TrainingLabels, load_weights: bool = True
    ) -> None:
        """As ASMR's, with a space and a classifier for the persons of the training split.

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
        # No shift before the classifier: representations have mean 0, so that a cosine means something (BNNeck).
        norm = nn.BatchNorm1d(config.person_size)
        norm.bias.requires_grad_(False)
        self.person_space = nn.Sequential(nn.Linear(self.backbone.channels, config.person_size, bias=False), norm)
        self.person_classifier = nn.Linear(config.person_size, len(labels.persons), bias=False)

    @property
    def labels(self) -> TrainingLabels:
        """See `Method`; with the persons."""
        return replace(super().labels, persons=self.persons)

    def parameter_groups(self, stage: str) -> dict[str, list[nn.Parameter]]:
        """See `Method`; those of ASMR and `persons`."""
        space = [self.person_space[0].weight, self.person_space[1].weight]
        return {**super().parameter_groups(stage), "persons": [*space, *self.person_classifier.parameters()]}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Method`: the losses of ASMR, `identity` and `triplet`."""
        features = self.backbone.pooled(batch["image"])
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            losses = self._losses(features, batch["attributes"])
            persons = self.labels.person_labels(batch["person"])
            followed = self.person_space(features if self.stage == "pretrain" else features.detach())
            identity = person_loss(self.person_classifier(followed), persons)
            triplet = batch_hard_triplet(followed, persons)
            return {
                **losses,
                "loss": losses["loss"] + self.config.person_weight * (identity + triplet),
                "identity": identity.detach(),
                "triplet": triplet.detach(),
            }

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method`; the features are the pooled ones."""
        features = self.backbone.pooled(images).float()
        if self.config.mirror:
            features = (features + self.backbone.pooled(images.flip(3)).float()) / 2
        share = self.config.person_share
        person = F.normalize(self.person_space(features), dim=1)
        return torch.cat([(1 - share) ** 0.5 * self.embed(features), share**0.5 * person], dim=1), features

    def encode_attributes(self, attributes: Tensor, known: Tensor) -> Tensor:
        """See `Method`: of norm 1 / sqrt(1 - s), 0 in the person space."""
        described = super().encode_attributes(attributes, known) / (1 - self.config.person_share) ** 0.5
        return F.pad(described, (0, self.config.person_size))
