"""The strong PAR baseline: a backbone and one classifier an attribute (Jia et al., 2020; DeepMAR: Li et al., 2015).

Every comparison starts from this row. It learns no joint space: its image embedding is the vector of its scores and a
description is embedded as itself, so that every distance it gives is one between attributes.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descry.trainer.backbones import Backbone, BackboneConfig
from descry.trainer.labels import TrainingLabels
from descry.trainer.losses import WEIGHTINGS, attribute_losses
from descry.trainer.methods.method import Method, check_options
from descry.trainer.schema import AttributeSchema


@dataclass(frozen=True)
class PARBaselineConfig:
    """Constants of the method; the defaults are those of the strong baseline.

    Attributes:
        backbone: the image network; its last stride stays.
        weighting: of the binary cross-entropy, `label_dependent`, `attribute` or `none`; see `imbalance_weights`.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(last_stride=2))
    weighting: str = "label_dependent"


class AttributeClassifier(nn.Sequential):
    """Pooled features [B, F] -> logits [B, N]: one linear layer, and a batch norm on the logits."""

    def __init__(self, features: int, attributes: int) -> None:
        """Build the two layers."""
        super().__init__(nn.Linear(features, attributes), nn.BatchNorm1d(attributes))


class PARBaseline(Method):
    """Backbone, average pooling, classifier, weighted binary cross-entropy."""

    Config = PARBaselineConfig
    stages = ("recognize",)

    def __init__(
        self, config: PARBaselineConfig, schema: AttributeSchema, labels: TrainingLabels, load_weights: bool = True
    ) -> None:
        """Build the modules for `schema`.

        Raises:
            ValueError: `weighting` is not one of its values.
        """
        super().__init__(schema, labels)
        check_options(config, weighting=WEIGHTINGS)
        self.config = config
        self.stage = "recognize"
        self.embedding_size = schema.size
        self.backbone = Backbone(config.backbone, load_weights)
        self.classifier = AttributeClassifier(self.backbone.channels, schema.size)

    def parameter_groups(self, stage: str) -> dict[str, list[nn.Parameter]]:
        """See `Method`."""
        return {"image": list(self.backbone.parameters()), "classifiers": list(self.classifier.parameters())}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Method`: `recognition`."""
        features = self.backbone.pooled(batch["image"])
        with torch.autocast(features.device.type, enabled=False):
            logits = self.classifier(features.float())
            loss = attribute_losses(logits, batch["attributes"], self.ratios, weighting=self.config.weighting).mean()
        return {"loss": loss, "recognition": loss.detach()}

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method`: the unit vector of 2 p - 1, and the pooled features."""
        features = self.backbone.pooled(images).float()
        return F.normalize(2 * self.attribute_scores(features) - 1, dim=1), features

    def attribute_scores(self, features: Tensor) -> Tensor:
        """See `Method`: the classifier's sigmoid."""
        return self.classifier(features).float().sigmoid()

    def encode_attributes(self, attributes: Tensor, known: Tensor) -> Tensor:
        """The unit vector of 2 b - 1 over what is stated, 0 elsewhere; stating nothing gives the zero vector."""
        return F.normalize((2 * attributes - 1) * known, dim=1)
