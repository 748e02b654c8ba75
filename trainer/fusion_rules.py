"""Ways to make one ranking of the PAR scores and the embedding distance, each with constants to be chosen.

A rule is chosen by mAP on one split and judged on another. Those that divide by constants of the first split are what a
server can compute (`Fusion`); the others are measured to see what is left to gain.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from descry.trainer.metrics import search_metrics
from descry.trainer.retrieval import FLOOR, PAR_DISTANCES, Fusion, fuse, measure_fusion, par_distances

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
TEMPERATURES = (0.7, 1.0, 1.4, 2.0)
RANK_OFFSETS = (10, 60, 200)  # Cormack, Clarke, Buettcher (SIGIR 2009) take 60
STRENGTHS = (0.1, 1.0, 10.0)
LOGARITHMS = (-5.0, 5.0)  # bounds of the learnt weights


@dataclass(frozen=True)
class Searched:
    """The complete descriptions of a split and what a method says of its images.

    Attributes:
        attributes: uint8 [Q, N].
        scores: float [G, N] in 0..1.
        embedding: embedding distances [Q, G].
        relevant: bool [Q, G].
        seen: bool [Q], whether training had the category.
        neighbours: nearest images that each image was averaged with.
    """

    attributes: Tensor
    scores: Tensor
    embedding: Tensor
    relevant: Tensor
    seen: Tensor
    neighbours: int = 0
    _par: dict[tuple[str, float], Tensor] = field(default_factory=dict, repr=False)

    def par(self, kind: str, temperature: float = 1.0) -> Tensor:
        """PAR distances [Q, G] of `kind`, the scores' logits divided by `temperature` before; computed once."""
        if (kind, temperature) not in self._par:
            scores = torch.sigmoid(_logits(self.scores) / temperature) if temperature != 1 else self.scores
            stated = torch.ones_like(self.attributes)
            self._par[kind, temperature] = par_distances(self.attributes, stated, scores, kind)
        return self._par[kind, temperature]

    def queries(self, rows: Tensor) -> "Searched":
        """Only some of the descriptions, int64 or bool [Q]."""
        return Searched(
            self.attributes[rows], self.scores, self.embedding[rows], self.relevant[rows], self.seen[rows]
        )  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """A rule with its constants.

    Attributes:
        constants: as chosen.
        mAP: on the split where they were chosen, 0..1.
        distances: of any split.
        fusion: what a server needs; None where it cannot compute the rule.
    """

    constants: dict[str, Any]
    mAP: float
    distances: Callable[[Searched], Tensor]
    fusion: Fusion | None = None


Rule = Callable[[Searched], Chosen]


def _logits(scores: Tensor) -> Tensor:
    return torch.logit(scores.double().clamp(FLOOR, 1 - FLOOR)).to(scores.dtype)


def _best(candidates: Sequence[Chosen]) -> Chosen:
    return max(candidates, key=lambda chosen: chosen.mAP)


def _judge(
    fitted: Searched, constants: dict[str, Any], distances: Callable[[Searched], Tensor], fusion: Fusion | None = None
) -> Chosen:
    return Chosen(constants, search_metrics(distances(fitted), fitted.relevant)["mAP"], distances, fusion)


def embedding_alone(fitted: Searched) -> Chosen:
    """The embedding distance."""
    return _judge(fitted, {}, lambda split: split.embedding)


def par_alone(kind: str) -> Rule:
    """The PAR distance."""
    return lambda fitted: _judge(fitted, {}, lambda split: split.par(kind))


def weighted_sum(kind: str) -> Rule:
    """`w * par / max_par + emb / max_emb`, the maxima those of the split where w is chosen: what a server computes."""

    def candidate(fitted: Searched, fusion: Fusion) -> Chosen:
        def distances(split: Searched) -> Tensor:
            return fuse(split.par(kind), split.embedding, fusion)

        return _judge(fitted, {"weight": fusion.par_weight}, distances, fusion)

    def choose(fitted: Searched) -> Chosen:
        fusions = [measure_fusion(fitted.par(kind), fitted.embedding, weight, kind) for weight in WEIGHTS]
        return _best([candidate(fitted, fusion) for fusion in fusions])

    return choose


def tempered_sum(kind: str) -> Rule:
    """The same with the logits of all scores divided by one temperature."""

    def choose(fitted: Searched) -> Chosen:
        candidates = []
        for temperature in TEMPERATURES:
            for weight in WEIGHTS:
                fusion = measure_fusion(fitted.par(kind, temperature), fitted.embedding, weight, kind)

                def distances(split: Searched, temperature: float = temperature, fusion: Fusion = fusion) -> Tensor:
                    return fuse(split.par(kind, temperature), split.embedding, fusion)

                candidates.append(_judge(fitted, {"weight": weight, "temperature": temperature}, distances))
        return _best(candidates)

    return choose


def query_maxima(distances: Tensor) -> Tensor:
    """[Q, G] divided by the largest of each query."""
    return distances / distances.amax(dim=1, keepdim=True).clamp(min=torch.finfo(distances.dtype).eps)


def query_scores(distances: Tensor) -> Tensor:
    """[Q, G] with mean 0 and standard deviation 1 for each query."""
    centred = distances - distances.mean(dim=1, keepdim=True)
    return centred / distances.std(dim=1, keepdim=True).clamp(min=torch.finfo(distances.dtype).eps)


def reciprocal_ranks(offset: int) -> Callable[[Tensor], Tensor]:
    """- 1 / (offset + rank) of [Q, G], ranks from 1, ties by gallery position."""

    def convert(distances: Tensor) -> Tensor:
        ranks = distances.argsort(dim=1, stable=True).argsort(dim=1) + 1
        return -1 / (offset + ranks.to(distances.dtype))

    return convert


def normalised_sum(kind: str, normalisers: dict[str, Callable[[Tensor], Tensor]]) -> Rule:
    """`w * normalise(par) + normalise(emb)`, w and one of the normalisers chosen."""

    def choose(fitted: Searched) -> Chosen:
        candidates = []
        for name, normalise in normalisers.items():
            for weight in WEIGHTS:

                def distances(split: Searched, weight: float = weight, normalise: Any = normalise) -> Tensor:
                    return weight * normalise(split.par(kind)) + normalise(split.embedding)

                candidates.append(_judge(fitted, {"weight": weight, "normaliser": name}, distances))
        return _best(candidates)

    return choose


def learned_sum(fitted: Searched) -> Chosen:
    """A sum that rises with every attribute's disagreement and with the embedding distance, weights learnt.

    Distance: sum_j b_j u_j (- log p_j) + (1 - b_j) v_j (- log(1 - p_j)) + w (1 - cos), u, v, w > 0. The weights
    minimise the mean over descriptions of - log of the share of exp(- distance) that relevant images have, plus
    `strength` times the mean squared logarithm of u and v. The strength is the best of those tried on the half of the
    descriptions that the weights were not learnt from.
    """
    half = torch.arange(len(fitted.attributes)) % 2 == 0
    tried = {strength: _learn(fitted.queries(half), strength) for strength in STRENGTHS}
    rest = fitted.queries(~half)
    judged = {
        strength: search_metrics(weights.distances(rest), rest.relevant)["mAP"] for strength, weights in tried.items()
    }
    strength = max(judged, key=lambda value: judged[value])
    weights = _learn(fitted, strength)
    return _judge(fitted, {"strength": strength, "embedding": round(float(weights.embedding), 2)}, weights.distances)


@dataclass(frozen=True)
class LearnedWeights:
    """Weights of `learned_sum`: `present` and `absent` [N], u and v; `embedding`, w."""

    present: Tensor
    absent: Tensor
    embedding: Tensor

    def distances(self, split: Searched) -> Tensor:
        """[Q, G]."""
        bits, logits = split.attributes.to(split.scores.dtype), _logits(split.scores)
        stated, denied = -F.logsigmoid(logits), -F.logsigmoid(-logits)
        par = (bits * self.present) @ stated.T + ((1 - bits) * self.absent) @ denied.T
        return par + self.embedding * split.embedding


def _learn(fitted: Searched, strength: float) -> LearnedWeights:
    count = fitted.attributes.shape[1]
    answered = fitted.queries(fitted.relevant.any(dim=1))

    def weights(logarithms: Tensor) -> LearnedWeights:
        present, absent, embedding = logarithms.float().exp().split([count, count, 1])
        return LearnedWeights(present, absent, embedding)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        logarithms = torch.from_numpy(values).requires_grad_()
        shares = F.log_softmax(-weights(logarithms).distances(answered), dim=1)
        found = shares.masked_fill(~answered.relevant, -torch.inf).logsumexp(dim=1)
        value = -found.mean() + strength * logarithms[:-1].square().mean()
        value.backward()
        return value.item(), logarithms.grad.numpy()  # type: ignore[union-attr]

    start = np.zeros(2 * count + 1)
    # Where few descriptions are told apart without a mistake, larger and larger weights would do ever better.
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[LOGARITHMS] * len(start))
    return weights(torch.from_numpy(found.x))


RULES: dict[str, Rule] = {
    "embedding alone": embedding_alone,
    **{f"PAR alone, {kind}": par_alone(kind) for kind in PAR_DISTANCES},
    **{f"weighted sum, {kind}": weighted_sum(kind) for kind in PAR_DISTANCES},
    **{f"weighted sum, {kind}, temperature": tempered_sum(kind) for kind in PAR_DISTANCES},
    **{
        f"normalised by query, {kind}": normalised_sum(kind, {"maximum": query_maxima, "z-score": query_scores})
        for kind in PAR_DISTANCES
    },
    **{
        f"reciprocal ranks, {kind}": normalised_sum(kind, {f"offset {k}": reciprocal_ranks(k) for k in RANK_OFFSETS})
        for kind in PAR_DISTANCES
    },
    "learned monotone sum": learned_sum,
}
