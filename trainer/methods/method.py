"""What every method offers to the loop, the evaluation and the export."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn

from descry.trainer.backbones import Backbone
from descry.trainer.labels import TrainingLabels
from descry.trainer.schema import AttributeSchema


class Method(nn.Module):
    """A module that trains in named stages and embeds images and descriptions into one space.

    Attributes:
        Config: the frozen dataclass of its constants.
        stages: names of its stages, in order.
        frozen_stages: those in which the config's `freeze_batch_norm` keeps the backbone's running statistics.
        stage: whose loss `forward` computes.
        backbone: the image network; its `network` is what an export may compute in bfloat16.
        embedding_size: D.
        schema: meaning of the N attributes.
    """

    Config: ClassVar[type]
    stages: ClassVar[tuple[str, ...]]
    frozen_stages: ClassVar[tuple[str, ...]] = ()
    config: Any
    stage: str
    backbone: Backbone
    embedding_size: int
    categories: Tensor
    counts: Tensor
    ratios: Tensor

    def __init__(self, schema: AttributeSchema, labels: TrainingLabels) -> None:
        """Keep the schema, and the training labels as buffers, so that a checkpoint brings them back."""
        super().__init__()
        self.schema = schema
        self.register_buffer("categories", labels.categories)
        self.register_buffer("counts", labels.counts)
        # Only training needs them, and training brings them along.
        self.register_buffer("ratios", labels.ratios, persistent=False)
        for index, pattern in enumerate(labels.patterns):
            self.register_buffer(f"pattern_{index}", pattern)

    @property
    def labels(self) -> TrainingLabels:
        """Categories and group patterns of the training split, on the device of the method."""
        patterns = tuple(self.get_buffer(f"pattern_{index}") for index in range(len(self.schema.groups)))
        return TrainingLabels(self.categories, self.counts, patterns, self.ratios)

    def begin_stage(self, stage: str) -> None:
        """Select the loss of `forward` and train exactly the parameters of that stage.

        Raises:
            ValueError: no such stage.
        """
        if stage not in self.stages:
            raise ValueError(f"{type(self).__name__} has no stage {stage!r}; valid: {', '.join(self.stages)}")
        self.stage = stage
        self.requires_grad_(False)
        for parameters in self.parameter_groups(stage).values():
            for parameter in parameters:
                parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> "Method":
        """As `nn.Module.train`, but in a frozen stage the backbone's batch norms stay in evaluation mode."""
        super().train(mode)
        self.hold_statistics()
        return self

    def hold_statistics(self) -> None:
        """In a frozen stage, put the backbone's batch norms into evaluation mode."""
        if self.stage in self.frozen_stages and self.config.freeze_batch_norm:
            self.backbone.freeze_batch_norm()

    def parameter_groups(self, stage: str) -> dict[str, list[nn.Parameter]]:
        """Trained parameters of a stage by the name under which a config scales their learning rate."""
        raise NotImplementedError

    def updates(self, stage: str) -> dict[str, tuple[str, ...]]:
        """The updates of one iteration of a stage, in order: each with the parameter groups that it may change.

        Each has an optimizer of its own and sees what the updates before it changed. Most methods have one for all.
        """
        return {"all": tuple(self.parameter_groups(stage))}

    @contextmanager
    def updating(self, update: str) -> Iterator[None]:
        """Inside, gradients reach exactly the parameters of one update of the current stage."""
        groups = self.parameter_groups(self.stage)
        changed = {id(parameter) for group in self.updates(self.stage)[update] for parameter in groups[group]}
        resting = [parameter for group in groups.values() for parameter in group if id(parameter) not in changed]
        for parameter in resting:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in resting:
                parameter.requires_grad_(True)

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Losses of an update of the current stage: `loss`, which is minimised, and named parts to log.

        Args:
            batch: `image` uint8 [B, 3, H, W] and `attributes` uint8 [B, N] (255 = unknown, gives no gradient);
                `update`, its name; `seed`, an integer that is the same on all processes; and what was carried over.

        Returns:
            Scalars; and under `carried`, if there is something to hand over, tensors without gradient by name, which
            the batch of the iteration's later updates has.
        """
        raise NotImplementedError

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embedding [B, D] and features [B, F] of images uint8 [B, 3, H, W]."""
        raise NotImplementedError

    def attribute_scores(self, features: Tensor) -> Tensor:
        """PAR scores [B, N] in 0..1 of features [B, F]."""
        raise NotImplementedError

    def calibrate(self, embeddings: Tensor, scores: Tensor, attributes: Tensor) -> Tensor:
        """Measure what turns similarities into probabilities, where a method has such constants.

        Args:
            embeddings: [n, D] of images, of the validation split where there is one.
            scores: [n, N], their PAR scores so far.
            attributes: uint8 [n, N], their labels; 255 = unknown.

        Returns:
            Their PAR scores [n, N] from now on.
        """
        return scores

    def encode_attributes(self, attributes: Tensor, known: Tensor) -> Tensor:
        """Unit query embedding [B, D] of a description; attributes and known are float [B, N] of 0 and 1."""
        raise NotImplementedError

    def change_query(self, embedding: Tensor, attributes: Tensor, known: Tensor) -> Tensor:
        """The query that asks for the person of a photo with some attributes changed: this one, but with a red top.

        Without parts of the embedding that belong to attributes it is the photo's own: what is changed then reaches a
        ranking through the PAR distance alone. Where nothing is stated, it is the photo's own with every method.

        Args:
            embedding: [B, D] of photos, from `encode_image`.
            attributes: float [B, N] of 0 and 1, those after the change; ignored where not known.
            known: float [B, N], 1 where stated.

        Returns:
            [B, D].
        """
        return embedding


def check_options(config: Any, **valid: tuple[str, ...]) -> None:
    """Refuse a method's config whose field, e.g. `weighting`, is none of its valid names.

    Raises:
        ValueError: it is not; the message lists the valid ones.
    """
    for key, names in valid.items():
        if getattr(config, key) not in names:
            raise ValueError(f"method.{key}: {getattr(config, key)!r} is not one of {', '.join(names)}")
