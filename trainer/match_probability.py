"""How probable it is that the top hit of a search is what the description says, from what a server knows of it.

The law is a logistic regression on the two distances of the top hit, on how much is stated, and on how many images are
searched. The PAR distance, which grows with what is stated, counts by stated group. Unlike the fused distance, the two
mean the same whatever weight a client gives the PAR distance. The more images, the nearer is the nearest wrong one: the
law is fitted on parts of a gallery as well, so that it knows how fast.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm import tqdm

from descry.trainer.datasets import DatasetError
from descry.trainer.extraction import Extracted, description_distances
from descry.trainer.imperfect import first_groups
from descry.trainer.methods import Method
from descry.trainer.metrics import BLOCK
from descry.trainer.partial import agreeing_images
from descry.trainer.protocols import category_queries
from descry.trainer.retrieval import Fusion, fuse
from descry.trainer.schema import UNKNOWN

# PAR distance of the top hit, before fusion, by stated group, and its embedding distance; how many groups are stated,
# and the natural logarithms of that and of how many images are searched.
FEATURES = ("par_per_group", "embedding_distance", "stated", "log_stated", "log_images")
# Of a split, to fit a law on.
SHARES = (1.0, 1 / 2, 1 / 4, 1 / 8)


@dataclass(frozen=True)
class TopHits:
    """The top hits of n searches, of a gallery (`present`) and of what is left of it without the images that fit.

    Attributes:
        features: float64 [n, F], `FEATURES`.
        distances: float64 [n], fused.
        matches: bool [n], whether the labels of the hit are all that the description states.
        present: bool [n], whether the gallery had an image that fits.
        stated: int64 [n], attribute groups that the description states.
        images: int64 [n], in the gallery, with those that fit.
        queries: int64 [n], number of the category that the description is of.
    """

    features: np.ndarray
    distances: np.ndarray
    matches: np.ndarray
    present: np.ndarray
    stated: np.ndarray
    images: np.ndarray
    queries: np.ndarray

    def __len__(self) -> int:
        """Number of searches."""
        return len(self.matches)

    def rows(self, rows: np.ndarray) -> "TopHits":
        """The searches at `rows`, int [m] or bool [n]."""
        return TopHits(*(getattr(self, field.name)[rows] for field in fields(self)))


def contradicting_images(attributes: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """Whether a known label uint8 [G, N] of each image is not what each description [Q, N] states: bool [Q, G]."""
    ones, zeros = ((known & (attributes == value)).float() for value in (1, 0))
    return ones @ (labels == 0).float().T + zeros @ (labels == 1).float().T > 0


def find_top_hits(
    method: Method,
    gallery: Extracted,
    fusion: Fusion,
    shares: Sequence[float] = (1.0,),
    seed: int = 0,
    progress: bool = False,
) -> TopHits:
    """Search for every complete category of a gallery, stating 1, 2, … and all of its groups, in random order.

    Each description that some image fits is searched for twice, with and without these images. An image that
    contradicts nothing but whose labels are not all known may fit or not: it is left out both times, so that it is
    known of every hit whether it matches. Where no image is left, there is no search.

    Args:
        method: encodes the descriptions.
        gallery: what it said of the images.
        fusion: the constants of the distance that ranks.
        shares: of the gallery, in 0..1, to search: random images, of which a smaller share is a part of a larger one.
        seed: of these images, and of the order in which a description states its groups.
        progress: show it.

    Raises:
        DatasetError: no image has all attributes known, or all images fit every description.
    """
    if not (gallery.attributes != UNKNOWN).all(dim=1).any():
        raise DatasetError(f"{gallery.crops.name}: no image has all attributes known, so there is nothing to ask for")
    asked = category_queries(gallery.crops, method.labels.categories).attributes
    groups, generator = len(method.schema.groups), torch.Generator().manual_seed(seed)
    places = torch.rand(len(asked), groups, generator=generator).argsort(dim=1)
    order = torch.randperm(len(gallery.crops), generator=generator)
    kept = [order < share * len(order) for share in shares]
    steps = tqdm(range(1, groups + 1), desc="searches", disable=not progress, leave=False)
    blocks = [
        block
        for stated in steps
        for block in _search(method, gallery, fusion, asked, first_groups(places, stated, method.schema), kept)
    ]
    hits = TopHits(*(np.concatenate([getattr(block, field.name) for block in blocks]) for field in fields(TopHits)))
    if hits.present.all():
        raise DatasetError(f"{gallery.crops.name}: all of the {len(gallery.crops)} images fit every description")
    return hits


def _search(
    method: Method, gallery: Extracted, fusion: Fusion, asked: Tensor, known: Tensor, galleries: Sequence[Tensor]
) -> Iterator[TopHits]:
    """The searches, block by block, of descriptions [Q, N] of which `known`, bool [Q, N], is stated.

    Args:
        method: encodes them.
        gallery: the G images.
        fusion: the constants of the distance that ranks.
        asked: the complete descriptions, uint8 [Q, N].
        known: what they state.
        galleries: the images to search, bool [G] each.
    """
    stated = known[:, [where.start for _, where in method.schema]].sum(dim=1)
    for start in range(0, len(asked), BLOCK):
        description = asked[start : start + BLOCK], known[start : start + BLOCK]
        par, embedding = description_distances(method, *description, gallery, fusion.par_distance)
        agreeing = agreeing_images(*description, gallery.attributes)
        contradicting = contradicting_images(*description, gallery.attributes)
        for kept, present in itertools.product(galleries, (True, False)):
            searched = kept & (agreeing | contradicting if present else contradicting)
            fused = fuse(par, embedding, fusion).masked_fill(~searched, torch.inf)
            rows = (searched.any(dim=1) & (kept & agreeing).any(dim=1)).nonzero().ravel()
            hits, queries = (rows, fused[rows].argmin(dim=1)), start + rows
            images = kept.sum().expand(len(rows))
            said = stated[queries]
            features = (par[hits] / said, embedding[hits], said, said.log(), images.log())
            yield TopHits(
                torch.stack([feature.double() for feature in features], dim=1).numpy(),
                fused[hits].double().numpy(),
                agreeing[hits].numpy(),
                np.full(len(rows), present),
                stated[queries].numpy(),
                images.numpy(),
                queries.numpy(),
            )


@dataclass(frozen=True)
class MatchProbability:
    """The probability sigmoid(intercept + weights · features) that a top hit matches.

    Attributes:
        weights: of each of `FEATURES`.
        intercept: the logit where all features are 0.
    """

    weights: tuple[float, ...]
    intercept: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The probability, float64 [n] in 0..1, of features [n, F]."""
        return expit(features @ np.array(self.weights) + self.intercept)


def fit_match_probability(hits: TopHits) -> MatchProbability:
    """The law that makes what was found most likely: of a place where as many are searched for who are there as not.

    Raises:
        DatasetError: every top hit matches, or none does.
    """
    if len(np.unique(hits.matches)) < 2:
        outcome = "all" if hits.matches.all() else "none"
        raise DatasetError(f"{outcome} of {len(hits)} top hits match: no probability can be fitted on this split")
    # The penalty of scikit-learn's default keeps the weights finite where a split is separable; it means the same for
    # all features once these have unit variance.
    scaler, regression = StandardScaler(), LogisticRegression()
    make_pipeline(scaler, regression).fit(hits.features, hits.matches)
    weights = regression.coef_[0] / scaler.scale_
    return MatchProbability(tuple(weights.tolist()), float(regression.intercept_[0] - weights @ scaler.mean_))
