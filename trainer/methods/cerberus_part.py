"""One body part of Cerberus: its representation, its semantic IDs and their prototypes."""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from descry.trainer.labels import match_rows
from descry.trainer.losses import IGNORE
from descry.trainer.methods.semantic_ids import SemanticIds
from descry.trainer.reid_losses import boundary_margins

# Persons that an ID is taken to have beside those of the training split, where several agree with a description.
UNSEEN_PERSONS = 0.5
INITIAL_SCALE = 10.0
INITIALIZATIONS = {
    "he_normal": nn.init.kaiming_normal_,
    "he_uniform": nn.init.kaiming_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "normal": nn.init.normal_,
}


@dataclass(frozen=True)
class PartSizes:
    """C, d and P: channels of the feature map, numbers of a representation, training persons."""

    channels: int
    features: int
    persons: int


class PartSpace(nn.Module):
    """The embedding space of one part.

    Attributes:
        columns: int64 [L], where the part's attributes lie in the attribute vector.
        table: uint8 [S, L], the attributes of each semantic ID.
        persons: int64 [S], training persons of each.
        scale: what cosines are multiplied with before the softmax over the IDs.
        prototypes: [S, d].
        directions: [L, d], v of Eq. 8.
        projection: pooled features [B, C] to representations [B, d].
        classifier: representations to logits [B, P] of the training persons.
    """

    columns: Tensor
    table: Tensor
    persons: Tensor
    scale: Tensor

    def __init__(self, ids: SemanticIds, persons: Tensor, sizes: PartSizes, initialization: str) -> None:
        """Build the modules; `persons` int64 [S] are the training persons of each of `ids`."""
        super().__init__()
        self.register_buffer("columns", ids.columns)
        self.register_buffer("table", ids.table)
        self.register_buffer("persons", persons)
        self.register_buffer("scale", torch.tensor(INITIAL_SCALE))
        self.prototypes = nn.Parameter(torch.empty(len(ids.table), sizes.features))
        INITIALIZATIONS[initialization](self.prototypes)  # type: ignore[operator]
        self.directions = nn.Parameter(torch.zeros(len(ids.columns), sizes.features))
        self.projection = nn.Sequential(nn.Linear(sizes.channels, sizes.features), nn.BatchNorm1d(sizes.features))
        self.classifier = nn.Linear(sizes.features, sizes.persons)

    @property
    def shift(self) -> nn.Parameter:
        """What the batch norm adds to every representation: [d], 0 at first."""
        norm = cast(nn.BatchNorm1d, self.projection[1])
        return norm.bias

    def labels(self, attributes: Tensor) -> Tensor:
        """The semantic ID of `attributes` uint8 [B, N]: int64 [B]; `IGNORE` where unknown or not in the table."""
        return match_rows(attributes[:, self.columns], self.table)

    def margins(self, total: Tensor, alpha: float, beta: float) -> Tensor:
        """The boundary margin of each ID [S] (Eq. 4) among `total` training persons, a scalar."""
        return boundary_margins(self.persons.float(), total, alpha=alpha, beta=beta)

    def posterior(self, units: Tensor) -> Tensor:
        """Probability of each ID [B, S] given unit representations [B, d]."""
        return (self.scale * self._cosines(units)).softmax(dim=1)

    def attribute_scores(self, units: Tensor) -> Tensor:
        """Probability of each of the part's attributes [B, L]: those of the IDs that have it, summed."""
        return self.posterior(units) @ self.table.to(units.dtype)

    def query(self, attributes: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """The unit prototype [B, d] of a description, and whether it states anything of the part: bool [B, 1].

        Where it states only some of the part's attributes: the mean of the unit prototypes that agree with what it
        states, weighted by their training persons. An ID that is not in the table is replaced by those nearest to it.

        Args:
            attributes: float [B, N] of 0 and 1.
            known: float [B, N] of 0 and 1.
        """
        agreeing, stated = self._agreeing(attributes, known)
        weights = agreeing * (self.persons.to(attributes.dtype) + UNSEEN_PERSONS)
        return self._mean_prototype(weights), stated

    def changed(self, units: Tensor, attributes: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """As `query`, of a description that changes the photo with unit representations [B, d].

        The agreeing prototypes are weighted by how well they fit the photo: a red top stays as long as it was.
        """
        agreeing, stated = self._agreeing(attributes, known)
        logits = (self.scale * self._cosines(units)).masked_fill(~agreeing, -torch.inf)
        return self._mean_prototype(logits.softmax(dim=1)), stated

    @torch.no_grad()
    def calibrate(self, units: Tensor, attributes: Tensor) -> None:
        """Set the scale under which the IDs of images, `attributes` uint8 [n, N], are most likely; unit rows [n, d]."""
        labels = self.labels(attributes)
        if not (labels != IGNORE).any():
            return
        cosines = self._cosines(units).double()

        def surprise(scale: float) -> float:
            return float(F.cross_entropy(scale * cosines, labels, ignore_index=IGNORE))

        self.scale.fill_(minimize_scalar(surprise, bounds=(1, 200), method="bounded").x)

    def _cosines(self, units: Tensor) -> Tensor:
        return units @ F.normalize(self.prototypes, dim=1).T

    def _agreeing(self, attributes: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """IDs that contradict the fewest stated attributes: bool [B, S]; whether any is stated: bool [B, 1]."""
        stated, bits = known[:, self.columns], attributes[:, self.columns]
        table = self.table.to(attributes.dtype)
        mismatches = (stated * bits) @ (1 - table).T + (stated * (1 - bits)) @ table.T
        return mismatches == mismatches.amin(dim=1, keepdim=True), stated.amax(dim=1, keepdim=True) > 0

    def _mean_prototype(self, weights: Tensor) -> Tensor:
        return F.normalize(weights @ F.normalize(self.prototypes, dim=1), dim=1)
