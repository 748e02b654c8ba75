"""SAL: symbiotic adversarial learning for attribute-based person search (Cao, Wang, Tao, ECCV 2020).

Two feature spaces, images f_v and descriptions f_a, and two encoders E_V, E_A into one common space. A synthesis-GAN
(G_A, G_V against D1) makes the features of one modality from those of the other, also for descriptions that nobody
has; an alignment-GAN (E_A against D2) uses them to make the two modalities alike in the common space.

Stage `image` trains the image branch, `embed` both branches (the paper's Embed), `symbiosis` is Algorithm 1. For the
stage-wise training of Table 4, `synthesis` and `alignment` follow each other in its place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descry.trainer.adversarial import ADVERSARIAL, DISTANCES, GAMES
from descry.trainer.backbones import Backbone
from descry.trainer.combinations import UnseenCombinations
from descry.trainer.labels import TrainingLabels
from descry.trainer.methods.alignment import encode_description
from descry.trainer.methods.completion import COMPLETIONS, complete_attributes
from descry.trainer.methods.method import Method, check_options
from descry.trainer.methods.sal_networks import FEATURES, SALNetworks, own_rows
from descry.trainer.methods.sal_updates import CHANGES, ORDERS, SYNTHESIS, Iteration, SALConfig
from descry.trainer.schema import UNKNOWN, AttributeSchema


class SAL(Method):
    """The two branches with their classifiers, and the two GANs."""

    Config = SALConfig
    stages = ("image", "embed", "symbiosis", "synthesis", "alignment")
    frozen_stages = stages[1:]

    def __init__(
        self, config: SALConfig, schema: AttributeSchema, labels: TrainingLabels, load_weights: bool = True
    ) -> None:
        """Build the modules for `schema` and the categories of the training split.

        Raises:
            ValueError: a name in `config` is not one of the valid ones.
        """
        super().__init__(schema, labels)
        check_options(
            config,
            adversarial=ADVERSARIAL,
            distance=DISTANCES,
            game=GAMES,
            order=tuple(ORDERS),
            unseen_form=("paper", "released"),
        )
        self.config = config
        self.stage = "symbiosis"
        self.embedding_size = size = config.embedding_size
        self.backbone = Backbone(config.backbone, load_weights)
        self.projection = nn.Linear(self.backbone.channels, FEATURES)
        self.networks = SALNetworks(schema.size, len(labels.categories), size, config.noise_size)
        self.combinations: UnseenCombinations | None = None

    @property
    def category_encoder(self) -> nn.Sequential:
        """Descriptions [..., N] to embeddings [..., D], not yet of unit length."""
        return nn.Sequential(self.networks.attribute_extractor, self.networks.attribute_encoder)

    def modules_by_group(self) -> dict[str, list[nn.Module]]:
        """All modules with parameters, by the name of their parameter group."""
        networks = self.networks
        return {
            "image": [self.backbone, self.projection],
            "attribute": [networks.attribute_extractor],
            "image_encoder": [networks.image_encoder],
            "attribute_encoder": [networks.attribute_encoder],
            "classifiers": [networks.attribute_classifier, networks.category_classifier],
            "generators": [networks.attribute_generator, networks.visual_generator],
            "synthesis_discriminator": [networks.synthesis_discriminator],
            "alignment_discriminator": [networks.alignment_discriminator],
        }

    def begin_stage(self, stage: str) -> None:
        """See `Method`; also takes the frequencies of new descriptions."""
        super().begin_stage(stage)
        self.combinations = None
        if self.config.unseen and stage not in ("image", "embed"):
            labels, config = self.labels, self.config
            rows = labels.categories.repeat_interleave(labels.counts, dim=0).cpu().numpy()
            self.combinations = UnseenCombinations(
                rows,
                self.schema,
                form=config.unseen_form,
                exclusive=self._exclusive(),
                subtract=config.unseen_subtract,
            )

    def _exclusive(self) -> list[range] | None:
        slices = self.schema.slices
        missing = sorted(set(self.config.unseen_exclusive) - set(slices))
        if missing:
            raise ValueError(
                f"method.unseen_exclusive: the schema has no group {missing[0]!r}; valid: {', '.join(slices)}"
            )
        wheres = [slices[name] for name in self.config.unseen_exclusive]
        return [range(where.start, where.stop) for where in wheres] or None

    def updates(self, stage: str) -> dict[str, tuple[str, ...]]:
        """See `Method`; the order is that of `method.order`."""
        config = self.config
        order = [update for update in ORDERS[config.order][stage] if config.synthesis or update not in SYNTHESIS]
        if not (config.synthesis and config.augmentation):
            # Without L_aug, L_align-adv reaches E_A alone.
            order = ["attribute_encoder" if update == "encoders" else update for update in order]
        return {update: CHANGES.get(update, (update,)) for update in order}

    def parameter_groups(self, stage: str) -> dict[str, list[nn.Parameter]]:
        """See `Method`: `image`, `attribute`, an encoder each, `classifiers`, `generators`, a discriminator each."""
        changed = {group for groups in self.updates(stage).values() for group in groups}
        return {
            name: [parameter for module in modules for parameter in module.parameters()]
            for name, modules in self.modules_by_group().items()
            if name in changed
        }

    @contextmanager
    def updating(self, update: str) -> Iterator[None]:
        """See `Method`; also chooses whose batch norms use the batch: the modules that are trained in this half.

        A GAN's own networks do in its updates, and the other GAN's generators rest, as in the released code; what the
        stage does not train rests throughout.
        """
        resting = {"image_encoder", "attribute_encoder"} if update in SYNTHESIS else {"generators"}
        working = self.parameter_groups(self.stage).keys() - resting
        for name, modules in self.modules_by_group().items():
            for module in modules:
                module.train(self.training and name in working)
        self.hold_statistics()
        with super().updating(update):
            yield

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """See `Method`; carries features, descriptions and noise over to the iteration's later updates."""
        update = batch.get("update", next(iter(self.updates(self.stage))))
        tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        # Only the updates of a branch reach its extractor; the others share what one pass through it gave.
        if update in ("image_branch", "embed") or "visual" not in tensors:
            tensors["visual"] = self.extract_visual(tensors["image"])
        if update in ("attribute_branch", "embed"):
            tensors.pop("semantic", None)
        with torch.autocast(tensors["visual"].device.type, enabled=False):
            if "descriptions" not in tensors:
                tensors.update(self._draw(tensors["attributes"], batch.get("seed", 0)))
            iteration = Iteration(self.config, self.networks, self.labels, self.stage, tensors)
            losses = getattr(iteration, update)()
        loss = losses.pop("loss")
        parts = {name: part.detach() for name, part in losses.items()}
        return {"loss": loss, **parts, "carried": iteration.carried()}

    def extract_visual(self, images: Tensor) -> Tensor:
        """f_v [B, 512] of images uint8 [B, 3, H, W]."""
        return self.projection(self.backbone.pooled(images)).float()

    def _draw(self, attributes: Tensor, seed: int) -> dict[str, Tensor]:
        """Everything random of an iteration, drawn for all processes at once: each takes its rows.

        The descriptions of the images, then new ones; and a row of noise for each. What is unknown of an image's
        description is completed as a partial query is, by one of the completions.
        """
        generator, count = torch.Generator().manual_seed(seed), len(attributes)
        completion = own_rows(count, lambda rows: torch.randint(COMPLETIONS, (rows,), generator=generator))
        drawn = [self._complete(attributes, completion.to(attributes.device))]
        if self.combinations:
            new = own_rows(count, partial(self.combinations.draw, generator=generator))
            drawn.append(new.to(drawn[0]))
        noise = [
            own_rows(count, lambda rows: torch.randn(rows, self.config.noise_size, generator=generator)) for _ in drawn
        ]
        descriptions = torch.cat(drawn)
        return {"descriptions": descriptions, "noise": torch.cat(noise).to(descriptions)}

    def _complete(self, attributes: Tensor, completion: Tensor) -> Tensor:
        """Descriptions float [B, N]: `attributes` uint8 [B, N], the unknown ones from completion number [B]."""
        known = (attributes != UNKNOWN).float()
        completions = complete_attributes(attributes.float(), known, self.categories, self.counts)
        return completions[torch.arange(len(completion), device=completion.device), completion]

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Method`; the features are the embedding before it is made a unit vector."""
        embeddings = self.networks.image_encoder(self.extract_visual(images))
        return F.normalize(embeddings, dim=1), embeddings

    def attribute_scores(self, features: Tensor) -> Tensor:
        """See `Method`: the attribute classifier of the common space."""
        return self.networks.attribute_classifier(features).sigmoid()

    def encode_attributes(self, attributes: Tensor, known: Tensor) -> Tensor:
        """See `encode_description`."""
        return encode_description(self.category_encoder, attributes, known, self.categories, self.counts)
