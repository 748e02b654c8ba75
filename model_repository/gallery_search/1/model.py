"""Triton model `gallery_search`: ranks the gallery for a query embedding and stated attributes."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from answers import byte_array, gallery_path, repository_of, tensor, texts
from desk import Desk
from filters import read_filter
from gallery import Gallery
from gallery_row import InvalidRequest
from query import Query, read_options
from ranking import Hits, Ranking
from served_model import ServedModel

MOST_HITS_A_REQUEST = 100_000
MOST_TRACKS_A_REQUEST = 10_000  # each with up to 100 images


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.desk = Desk(args, "search", audit="after")
        self.model = ServedModel.load(repository_of(args))
        self.ranking = Ranking(Gallery(gallery_path(args), self.model), self.model)

    def execute(self, requests: list[Any]) -> list[Any]:
        responses = self.desk.answer(requests, self.read, self.ranking.search, self.pack)
        self.desk.metrics.rows(len(self.ranking))
        return responses

    def read(self, request: Any) -> list[Query]:
        """One `Query` a row of the request."""
        rows, k = len(tensor(request, "k")), one_k(tensor(request, "k"))
        vectors = [tensor(request, name) for name in ("query", "attributes", "known")]
        weights = tensor(request, "par_weight").ravel().tolist()
        thresholds = optional(request, "threshold", [-1.0] * rows)
        # Rows of a request mostly share these; equal texts are read once and are one object afterwards.
        filters = map(functools.cache(read_filter), texts(request, "filter"))
        ranks = list(map(functools.cache(read_options), optional(request, "options", ["{}"] * rows)))
        most = MOST_TRACKS_A_REQUEST if any(ranks) else MOST_HITS_A_REQUEST
        if rows * k > most:
            raise InvalidRequest(f"{rows} queries of k = {k} exceed {most} hits a request: send fewer at once")
        queries = [
            Query(query, attributes, known, weight, k, filter, by, threshold, request.is_cancelled)
            for query, attributes, known, weight, filter, by, threshold in zip(
                *vectors, weights, filters, ranks, thresholds, strict=True
            )
        ]
        for query in queries:
            query.check(self.model)
        return queries

    def pack(self, hits: Sequence[Hits]) -> dict[str, np.ndarray]:
        """The hits of one request, rows padded to the longest and to one hit at least."""
        longest = max(1, max(len(each.ids) for each in hits))
        outputs = {
            name: byte_array(getattr(each, name) + [""] * (longest - len(each.ids)) for each in hits)
            for name in ("ids", "metadata", "frames")
        }
        for name in ("distances", "par_distances", "embedding_distances", "terms", "scores", "probabilities"):
            outputs[name] = np.stack([padded(getattr(each, name), longest) for each in hits])
        return outputs | {"verdict": byte_array([each.verdict] for each in hits)}


def one_k(counts: np.ndarray) -> int:
    """The k of a request, which its rows share."""
    different = np.unique(counts)
    if len(different) > 1:
        raise InvalidRequest(f"k must be equal over a batch, got {different.tolist()}")
    return int(different[0])


def optional(request: Any, name: str, absent: list[Any]) -> list[Any]:
    """The values of an input that a request may leave out."""
    given = pb_utils.get_input_tensor_by_name(request, name)
    if given is None:
        return absent
    return texts(request, name) if isinstance(absent[0], str) else given.as_numpy().ravel().tolist()


def padded(values: np.ndarray, length: int) -> np.ndarray:
    """`values` [K, ...] followed by NaN up to `length`."""
    rest = np.full((length - len(values), *values.shape[1:]), np.nan, np.float32)
    return np.concatenate([values, rest])
