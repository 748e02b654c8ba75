"""The updates of SAL's iteration, in the order of Algorithm 1 or of the released code, and the loss of each."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from descry.trainer.adversarial import (
    adversarial_loss,
    attribute_loss,
    category_loss,
    discriminator_accuracy,
    generator_loss,
    row_distance,
)
from descry.trainer.backbones import BackboneConfig
from descry.trainer.labels import TrainingLabels
from descry.trainer.losses import IGNORE
from descry.trainer.methods.sal_networks import EMBEDDING, SALNetworks

SYNTHESIS = ("synthesis_discriminator", "generators")
# The updates of an iteration in order: Algorithm 1, and the released code, which leaves L_embed for the end, together
# with L_aug2, in an update a branch.
ORDERS: dict[str, dict[str, tuple[str, ...]]] = {
    "paper": {
        "image": ("image_branch",),
        "embed": ("embed",),
        "symbiosis": ("embed", *SYNTHESIS, "alignment_discriminator", "encoders"),
        "synthesis": SYNTHESIS,
        "alignment": ("embed", "alignment_discriminator", "encoders"),
    },
    "released": {
        "image": ("image_branch",),
        "embed": ("image_branch", "attribute_branch"),
        "symbiosis": (
            *SYNTHESIS, "alignment_discriminator", "attribute_encoder", "image_branch", "attribute_branch"
        ),
        "synthesis": SYNTHESIS,
        "alignment": ("alignment_discriminator", "attribute_encoder", "image_branch", "attribute_branch"),
    },
}  # fmt: skip
# The parameter groups that an update changes, where it is not the one of its own name.
CHANGES = {
    "image_branch": ("image", "image_encoder", "classifiers"),
    "attribute_branch": ("attribute", "attribute_encoder", "classifiers"),
    "embed": ("image", "attribute", "image_encoder", "attribute_encoder", "classifiers"),
    "encoders": ("image_encoder", "attribute_encoder"),
}
# What an update hands over to the later ones of its iteration.
CARRIED = ("descriptions", "noise", "visual", "semantic", "synthetic_visual", "synthetic_semantic")


@dataclass(frozen=True)
class SALConfig:
    """Constants of the method; the defaults are the paper's.

    Attributes:
        backbone: the image network; its last stride stays.
        embedding_size: D.
        noise_size: numbers of noise that G_V gets.
        synthesis: whether there is a synthesis-GAN; without it, what is left is Embed + adv.
        augmentation: L_aug, the use of synthetic features in the common space (Eq. 11).
        consistency: L_consis (Eq. 6).
        unseen: draw as many new descriptions as there are images, in every iteration.
        unseen_form, unseen_subtract: `form` and `subtract` of `UnseenCombinations`.
        unseen_exclusive: names of the attribute groups of which a new description has at most one value; empty = the
            schema's `choice` groups.
        order: of the updates; see `ORDERS`. With `released`, a branch's loss is the mean of that of real and of
            synthetic features, and synthetic images of new descriptions are not classified.
        adversarial, game, distance: forms of the losses; see `descry.trainer.adversarial`.
        fake_weight: weight of either kind of fake pair in L_gan1 (Eq. 4).
        smoothing: of the targets of L_cat and L_att.
        freeze_batch_norm: keep the backbone's running statistics in all stages but `image`.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(last_stride=2))
    embedding_size: int = EMBEDDING
    noise_size: int = 400
    synthesis: bool = True
    augmentation: bool = True
    consistency: bool = True
    unseen: bool = True
    unseen_form: str = "paper"
    unseen_subtract: float = 0.0
    unseen_exclusive: tuple[str, ...] = ()
    order: str = "paper"
    adversarial: str = "cross_entropy"
    game: str = "non_saturating"
    distance: str = "norm"
    fake_weight: float = 0.5
    smoothing: float = 0.0
    freeze_batch_norm: bool = False


class Iteration:
    """What one update of an iteration sees, and the loss of each update by its name.

    Every loss is a dictionary: `loss`, and the parts to log.

    Args:
        config: of the method.
        networks: all but the image extractor.
        labels: of the training split.
        stage: the current one.
        tensors: `attributes` uint8 [B, N]; `descriptions` float [B', N], the images' completed ones and then new ones;
            `noise` [B', Z]; `visual`, f_v [B, 512]; and what was carried over: `semantic`, f_a [B', 512], the synthetic
            f_v [B', 512] and f_a [B, 512] as `synthetic_visual` and `synthetic_semantic`.
    """

    def __init__(
        self, config: SALConfig, networks: SALNetworks, labels: TrainingLabels, stage: str, tensors: dict[str, Tensor]
    ) -> None:
        """Keep them; what an update computes for the later ones is added to `tensors`."""
        self.config, self.networks, self.labels, self.tensors = config, networks, labels, tensors
        self.augments = config.synthesis and config.augmentation and stage not in ("image", "embed")
        # The released code halves both losses of a branch once it knows synthetic features.
        self.branch_weight = 0.5 if stage in ("symbiosis", "alignment") else 1.0

    def embed(self) -> dict[str, Tensor]:
        """L_embed of both branches (Eq. 1)."""
        return _summed({**self._images(), **self._descriptions()})

    def image_branch(self) -> dict[str, Tensor]:
        """L_embed of the images, and where there are any of synthetic f_v (released code)."""
        synthetic = self._synthetic_images() if self.augments else {}
        return _summed({**self._images(), **synthetic}, self.branch_weight)

    def attribute_branch(self) -> dict[str, Tensor]:
        """L_embed of the descriptions, and where there are any of synthetic f_a (released code)."""
        synthetic = self._synthetic_descriptions() if self.augments else {}
        return _summed({**self._descriptions(), **synthetic}, self.branch_weight)

    def synthesis_discriminator(self) -> dict[str, Tensor]:
        """L_gan1 for D1 (Eq. 4)."""
        form, weight = self.config.adversarial, self.config.fake_weight
        pairs = self._pairs(*self._synthetic())
        real, visual, semantic = (self.networks.synthesis_discriminator(rows) for rows in pairs)
        fake = adversarial_loss(visual, False, form=form) + adversarial_loss(semantic, False, form=form)
        accuracy = discriminator_accuracy(real, torch.cat([visual, semantic]))
        return {"loss": adversarial_loss(real, True, form=form) + weight * fake, "synthesis_accuracy": accuracy}

    def generators(self) -> dict[str, Tensor]:
        """L_gan1 for G_A and G_V, L_cyc and L_consis (Eq. 4-7)."""
        config = self.config
        visual, semantic = self._synthesise()
        self.tensors.update(synthetic_visual=visual, synthetic_semantic=semantic)
        _, *fakes = (self.networks.synthesis_discriminator(rows) for rows in self._pairs(visual, semantic))
        adversarial = [generator_loss(fake, form=config.adversarial, game=config.game) for fake in fakes]
        parts = {
            "synthesis": config.fake_weight * torch.stack(adversarial).sum(),
            "cycle": row_distance(
                self.networks.attribute_generator(visual), self._semantic().detach(), form=config.distance
            ),
        }
        if config.consistency:
            parts["consistency"] = self._consistency(visual, semantic)
        return _summed(parts)

    def _consistency(self, visual: Tensor, semantic: Tensor) -> Tensor:
        """L_consis (Eq. 6) of synthetic f_v of all descriptions, and synthetic f_a."""
        with torch.no_grad():
            images, descriptions = self._embeddings(self.tensors["visual"], self._semantic())
        synthetic_images, synthetic_descriptions = self._embeddings(visual, semantic)
        count = len(images)
        pairs = (
            (synthetic_descriptions, images),
            (synthetic_images, descriptions),
            (synthetic_descriptions, descriptions[:count]),
            (synthetic_images[:count], images),
        )
        return torch.stack([row_distance(*pair, form=self.config.distance) for pair in pairs]).sum()

    def alignment_discriminator(self) -> dict[str, Tensor]:
        """L_gan2 and L_aug1 for D2 (Eq. 8, 9)."""
        with torch.no_grad():
            embeddings = [self._embeddings(self.tensors["visual"], self._semantic())]
            if self.augments:
                embeddings.append(self._embeddings(*self._synthetic()))
        real = [self.networks.alignment_discriminator(images) for images, _ in embeddings]
        fake = [self.networks.alignment_discriminator(descriptions) for _, descriptions in embeddings]
        losses = [adversarial_loss(logits, True, form=self.config.adversarial) for logits in real]
        losses += [adversarial_loss(logits, False, form=self.config.adversarial) for logits in fake]
        accuracy = discriminator_accuracy(torch.cat(real), torch.cat(fake))
        return {"loss": torch.stack(losses).sum(), "alignment_accuracy": accuracy}

    def attribute_encoder(self) -> dict[str, Tensor]:
        """L_gan2 and L_aug1 for E_A (Eq. 8, 9)."""
        described = [self._semantic().detach()]
        if self.augments:
            described.append(self._synthetic()[1])
        logits = [self.networks.alignment_discriminator(self.networks.attribute_encoder(rows)) for rows in described]
        losses = [generator_loss(rows, form=self.config.adversarial, game=self.config.game) for rows in logits]
        return _summed({"alignment": torch.stack(losses).sum()})

    def encoders(self) -> dict[str, Tensor]:
        """L_align-adv for E_A and E_V (Eq. 8-12)."""
        parts = {"alignment": self.attribute_encoder()["loss"]}
        if self.augments:
            parts.update(self._synthetic_images() | self._synthetic_descriptions())
        return _summed(parts)

    def carried(self) -> dict[str, Tensor]:
        """What the later updates of the iteration need of `tensors`, without gradient."""
        return {name: self.tensors[name].detach() for name in CARRIED if name in self.tensors}

    def _images(self) -> dict[str, Tensor]:
        return self._common_space("image", self.networks.image_encoder(self.tensors["visual"]))

    def _descriptions(self) -> dict[str, Tensor]:
        return self._common_space("description", self.networks.attribute_encoder(self._semantic()))

    def _synthetic_images(self) -> dict[str, Tensor]:
        visual = self._synthetic()[0]
        classified = visual if self.config.order == "paper" else visual[: len(self.tensors["attributes"])]
        return self._common_space("synthetic_image", self.networks.image_encoder(classified))

    def _synthetic_descriptions(self) -> dict[str, Tensor]:
        return self._common_space("synthetic_description", self.networks.attribute_encoder(self._synthetic()[1]))

    def _common_space(self, name: str, embeddings: Tensor) -> dict[str, Tensor]:
        """L_cat and L_att (Eq. 2, 3) of embeddings [B, D] of the batch, or [B', D] of it and the new descriptions."""
        attributes = self.tensors["attributes"]
        new = self.tensors["descriptions"][len(attributes) :].to(torch.uint8)
        labels = F.pad(self.labels.category_labels(attributes), (0, len(new)), value=IGNORE)
        attributes, count = torch.cat([attributes, new]), len(embeddings)
        logits, smoothing = self.networks.category_classifier(embeddings), self.config.smoothing
        classified = self.networks.attribute_classifier(embeddings)
        return {
            f"{name}_category": category_loss(logits, labels[:count], smoothing=smoothing),
            f"{name}_attributes": attribute_loss(classified, attributes[:count], smoothing=smoothing),
        }

    def _semantic(self) -> Tensor:
        """f_a [B', 512] of all descriptions, the images' first."""
        if "semantic" not in self.tensors:
            self.tensors["semantic"] = self.networks.attribute_extractor(self.tensors["descriptions"])
        return self.tensors["semantic"]

    def _synthesise(self) -> tuple[Tensor, Tensor]:
        """Synthetic f_v [B', 512] of all descriptions, and synthetic f_a [B, 512] of the images."""
        visual = self.networks.visual_generator(torch.cat([self._semantic().detach(), self.tensors["noise"]], dim=1))
        return visual, self.networks.attribute_generator(self.tensors["visual"].detach())

    def _synthetic(self) -> tuple[Tensor, Tensor]:
        """As `_synthesise`, without gradient, and once an iteration."""
        if "synthetic_visual" not in self.tensors:
            with torch.no_grad():
                self.tensors["synthetic_visual"], self.tensors["synthetic_semantic"] = self._synthesise()
        return self.tensors["synthetic_visual"], self.tensors["synthetic_semantic"]

    def _pairs(self, visual: Tensor, semantic: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """D1's rows (f_a, f_v): real ones, with synthetic f_v, and with synthetic f_a."""
        images, descriptions = self.tensors["visual"].detach(), self._semantic().detach()
        return (
            torch.cat([descriptions[: len(images)], images], dim=1),
            torch.cat([descriptions, visual], dim=1),
            torch.cat([semantic, images], dim=1),
        )

    def _embeddings(self, visual: Tensor, semantic: Tensor) -> tuple[Tensor, Tensor]:
        """E_V and E_A of them."""
        return self.networks.image_encoder(visual), self.networks.attribute_encoder(semantic)


def _summed(parts: dict[str, Tensor], weight: float = 1.0) -> dict[str, Tensor]:
    return {"loss": weight * torch.stack(list(parts.values())).sum(), **parts}
