"""Cerberus: attribute-based person re-identification using semantic IDs (Eom et al., 2024).

An image has a representation for each body part: head, upper and lower body from thirds of a local feature map,
identity and carrying from a global one. A semantic ID is a combination of the attributes of one part; each has a
prototype that the representations of its images are pulled to (L_sem), while images of one person are pulled together
(L_id), and prototypes differ as their attributes do (L_reg): L = 5 L_sem + L_id + 0.001 L_reg (Eq. 1, 2).

One model serves re-identification (mean cosine of the parts), attribute recognition (nearest prototype), search by
description (prototypes as query) and by part of one (parts, or attributes of a part, left out).
"""

from dataclasses import dataclass, field, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descry.trainer.backbones import BackboneConfig
from descry.trainer.labels import TrainingLabels
from descry.trainer.methods.cerberus_networks import BranchedBackbone, align_rows, pool_parts
from descry.trainer.methods.cerberus_part import INITIALIZATIONS, PartSizes, PartSpace
from descry.trainer.methods.method import Method, check_options
from descry.trainer.methods.semantic_ids import COMBINATIONS, semantic_ids
from descry.trainer.reid_losses import batch_hard_triplet, person_loss, prototype_regularization, semantic_guidance
from descry.trainer.schema import AttributeSchema


@dataclass(frozen=True)
class CerberusConfig:
    """Constants of the method; the defaults are the paper's.

    Attributes:
        backbone: the image network; its last stages are doubled.
        part_size: d, numbers of each part's representation.
        alignment: whether the alignment module crops the local map.
        threshold: sigma of the alignment module, a norm of features.
        semantic_weight, identity_weight, regularization_weight: lambda_sem, lambda_id, lambda_reg.
        alpha, beta: of the margin ln(alpha N_g / N + beta); 0 and 1 are no margin, 0 and e^0.6 Table 8's fixed one.
        combinations: semantic IDs are all `legal` combinations of a part's attributes, or those `seen` in training.
        initialization: of the prototypes, one of those of Table 7.
        shift: whether the batch norm of a representation learns a shift. With one, all images of a part come near one
            direction, which satisfies L_sem without telling semantic IDs apart (docs/methods.md).
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    part_size: int = 512
    alignment: bool = True
    threshold: float = 5.0
    semantic_weight: float = 5.0
    identity_weight: float = 1.0
    regularization_weight: float = 0.001
    alpha: float = 0.4
    beta: float = 1.8
    combinations: str = "legal"
    initialization: str = "he_normal"
    shift: bool = False


class Cerberus(Method):
    """A backbone with two branches, and the space of each part."""

    Config = CerberusConfig
    stages = ("end_to_end",)
    backbone: BranchedBackbone
    persons: Tensor
    everyone: Tensor
    order: Tensor

    def __init__(
        self, config: CerberusConfig, schema: AttributeSchema, labels: TrainingLabels, load_weights: bool = True
    ) -> None:
        """Build the modules for the parts of `schema` and the persons of the training split.

        Raises:
            ValueError: a name in `config` is not one of the valid ones, a part has too many legal combinations, or no
                training person is known though L_id is to be learnt.
        """
        super().__init__(schema, labels)
        check_options(config, combinations=COMBINATIONS, initialization=tuple(INITIALIZATIONS))
        if config.identity_weight and not len(labels.persons):
            raise ValueError(
                "the training split names no person, and L_id of Cerberus tells persons apart: use a dataset with "
                "person numbers, or set method.identity_weight to 0"
            )
        self.config = config
        self.stage = "end_to_end"
        self.register_buffer("persons", labels.persons)
        # N of Eq. 4: an image of an unknown person stands for one.
        self.register_buffer("everyone", torch.tensor(len(labels.owners.unique())))
        self.backbone = BranchedBackbone(config.backbone, load_weights)
        sizes = PartSizes(self.backbone.channels, config.part_size, max(1, len(labels.persons)))
        self.parts = nn.ModuleDict(
            {
                ids.part: PartSpace(ids, ids.count_persons(labels), sizes, config.initialization)
                for ids in semantic_ids(schema, labels, config.combinations)
            }
        )
        self.embedding_size = len(self.parts) * config.part_size
        columns = torch.cat([space.columns for space in self.spaces])
        self.register_buffer("order", columns.argsort(), persistent=False)

    @property
    def spaces(self) -> list[PartSpace]:
        """The parts in the order of the embedding."""
        return cast("list[PartSpace]", list(self.parts.values()))

    @property
    def labels(self) -> TrainingLabels:
        """See `Method`; with the persons."""
        return replace(super().labels, persons=self.persons)

    def parameter_groups(self, stage: str) -> dict[str, list[nn.Parameter]]:
        """See `Method`; what a weight of 0 leaves without a loss is not trained."""
        config, spaces = self.config, self.spaces
        shifts = [] if config.shift else [space.shift for space in spaces]
        projections = [parameter for space in spaces for parameter in space.projection.parameters()]
        projections = [parameter for parameter in projections if all(parameter is not shift for shift in shifts)]
        classifiers = [parameter for space in spaces for parameter in space.classifier.parameters()]
        regularized = config.regularization_weight > 0
        return {
            "image": [*self.backbone.parameters(), *projections],
            "classifiers": classifiers if config.identity_weight else [],
            "prototypes": [space.prototypes for space in spaces] if config.semantic_weight or regularized else [],
            "directions": [space.directions for space in spaces] if regularized else [],
        }

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Method`: `semantic`, `identity`, `triplet` and `regularization`, each the mean over the parts."""
        maps = self.backbone.maps(batch["image"])
        with torch.autocast(batch["image"].device.type, enabled=False):
            persons = self.labels.person_labels(batch["person"])
            return self._losses(self._represent(*maps), batch["attributes"], persons)

    def _losses(self, representations: list[Tensor], attributes: Tensor, persons: Tensor) -> dict[str, Tensor]:
        """Eq. 1 of representations [B, d] a part, attributes uint8 [B, N] and person labels int64 [B]."""
        config = self.config
        parts: dict[str, list[Tensor]] = {"semantic": [], "identity": [], "triplet": [], "regularization": []}
        for space, features in zip(self.spaces, representations, strict=True):
            margins = space.margins(self.everyone, config.alpha, config.beta)
            guided = semantic_guidance(features, space.prototypes, space.labels(attributes), margins)
            parts["semantic"].append(guided)
            parts["identity"].append(person_loss(space.classifier(features), persons))
            parts["triplet"].append(batch_hard_triplet(features, persons))
            parts["regularization"].append(prototype_regularization(space.prototypes, space.table, space.directions))
        means = {name: torch.stack(values).mean() for name, values in parts.items()}
        loss = (
            config.semantic_weight * means["semantic"]
            + config.identity_weight * (means["identity"] + means["triplet"])
            + config.regularization_weight * means["regularization"]
        )
        return {"loss": loss, **{name: mean.detach() for name, mean in means.items()}}

    def _represent(self, global_map: Tensor, local_map: Tensor) -> list[Tensor]:
        """Representations [B, d] of each part, after their batch norm."""
        if self.config.alignment:
            local_map = align_rows(local_map, self.config.threshold)
        pooled = pool_parts(global_map, local_map, list(self.parts))
        return [space.projection(features) for space, features in zip(self.spaces, pooled, strict=True)]

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method`: the parts' unit representations, one after the other, over the root of their number; twice.

        The inner product of two images is then the mean of the parts' cosines (section 3.3).
        """
        units = [F.normalize(rows, dim=1) for rows in self._represent(*self.backbone.maps(images))]
        embedding = torch.cat(units, dim=1) / len(units) ** 0.5
        return embedding, embedding

    def _split(self, embedding: Tensor) -> list[Tensor]:
        """The unit representations [B, d] inside an embedding."""
        return list((embedding * len(self.parts) ** 0.5).split(self.config.part_size, dim=1))

    def attribute_scores(self, features: Tensor) -> Tensor:
        """See `Method`: of each part, the softmax over its semantic IDs, summed over those that have the attribute."""
        scores = [
            space.attribute_scores(units) for space, units in zip(self.spaces, self._split(features), strict=True)
        ]
        return torch.cat(scores, dim=1)[:, self.order].clamp(0, 1)

    def calibrate(self, embeddings: Tensor, scores: Tensor, attributes: Tensor) -> Tensor:
        """See `Method`: the scale of each part's softmax."""
        device = self.persons.device
        for space, units in zip(self.spaces, self._split(embeddings.to(device)), strict=True):
            space.calibrate(units, attributes.to(device))
        with torch.no_grad():
            return self.attribute_scores(embeddings.to(device)).to(scores.device)

    def encode_attributes(self, attributes: Tensor, known: Tensor) -> Tensor:
        """See `Method`: the prototypes, and zeros for parts that the description leaves out.

        The inner product with an image is the mean of the cosines of the stated parts. A complete description gives a
        unit row; one of n of G parts has norm sqrt(G / n).
        """
        described = [space.query(attributes, known) for space in self.spaces]
        stated = torch.cat([part for _, part in described], dim=1).to(attributes.dtype)
        share = len(described) ** 0.5 / stated.sum(dim=1, keepdim=True).clamp(min=1)
        units = [units * part for (units, _), part in zip(described, stated.split(1, dim=1), strict=True)]
        return torch.cat(units, dim=1) * share

    def change_query(self, embedding: Tensor, attributes: Tensor, known: Tensor) -> Tensor:
        """See `Method`: the stated parts come from the prototypes, the others from the photo."""
        changed = []
        for space, rows in zip(self.spaces, embedding.split(self.config.part_size, dim=1), strict=True):
            prototype, stated = space.changed(F.normalize(rows, dim=1), attributes, known)
            changed.append(torch.where(stated, prototype / len(self.parts) ** 0.5, rows))
        return torch.cat(changed, dim=1)

    def part_attention(self, images: Tensor) -> Tensor:
        """Where the representation of each part comes from (Figure 8): [B, G, H', W'] of images uint8 [B, 3, H, W].

        A place's value is what its features add to the norm of the representation, gradient times feature. As
        alignment, pooling and projection are linear, that is exact up to the constant of the projection. A negative
        value speaks against the representation.
        """
        maps = [one.detach().requires_grad_() for one in self.backbone.maps(images)]
        attention = []
        with torch.enable_grad():
            for representation in self._represent(*maps):
                norm = representation.norm(dim=1).sum()
                gradients = torch.autograd.grad(norm, maps, retain_graph=True, allow_unused=True)
                used = [
                    (one * slope).sum(dim=1) for one, slope in zip(maps, gradients, strict=True) if slope is not None
                ]
                attention.append(used[0].detach())
        return torch.stack(attention, dim=1)
