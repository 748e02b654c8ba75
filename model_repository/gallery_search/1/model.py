"""Triton model `gallery_search`: ranks the gallery for a query embedding and stated attributes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from answers import answer_together, byte_array, gallery_path, repository_of, tensor, texts
from gallery import Gallery
from gallery_row import InvalidRequest, json_object
from ranking import Hits, Query, Ranking
from served_model import ServedModel

FILTERS = ("camera",)
MOST_HITS_A_REQUEST = 100_000


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        model = ServedModel.load(repository_of(args))
        self.attribute_count = model.attribute_count
        self.ranking = Ranking(Gallery(gallery_path(args), model), model)

    def execute(self, requests: list[Any]) -> list[Any]:
        return answer_together(requests, self.read, self.ranking.search, self.pack)

    def read(self, request: Any) -> list[Query]:
        """One `Query` a row of the request."""
        counts = np.unique(tensor(request, "k"))
        rows = len(tensor(request, "k"))
        if len(counts) > 1:
            raise InvalidRequest(f"k must be equal over a batch, got {counts.tolist()}")
        if rows * int(counts[0]) > MOST_HITS_A_REQUEST:
            raise InvalidRequest(
                f"{rows} queries of k = {counts[0]} exceed {MOST_HITS_A_REQUEST} hits a request: send fewer at once"
            )
        vectors = [tensor(request, name) for name in ("query", "attributes", "known")]
        weights, filters = tensor(request, "par_weight").ravel(), texts(request, "filter")
        queries = [
            Query(query, attributes, known, float(weight), int(counts[0]), cameras_of(filter))
            for query, attributes, known, weight, filter in zip(*vectors, weights, filters, strict=True)
        ]
        for query in queries:
            self.ranking.check(query)
        return queries

    def pack(self, hits: Sequence[Hits]) -> dict[str, np.ndarray]:
        """The hits of one request, rows padded to the longest and to one hit at least."""
        longest = max(1, max(len(each.ids) for each in hits))
        outputs = {"ids": byte_array(each.ids + [""] * (longest - len(each.ids)) for each in hits)}
        outputs["metadata"] = byte_array(each.metadata + [""] * (longest - len(each.ids)) for each in hits)
        for name in ("distances", "par_distances", "embedding_distances", "terms", "scores"):
            outputs[name] = np.stack([padded(getattr(each, name), longest) for each in hits])
        return outputs


def cameras_of(text: str) -> frozenset[str] | None:
    """The cameras that a filter keeps; None for all."""
    wanted = json_object("filter", text)
    unknown = sorted(set(wanted) - set(FILTERS))
    if unknown:
        raise InvalidRequest(f"filter {unknown[0]!r} is not known; valid: {', '.join(FILTERS)}")
    if "camera" not in wanted:
        return None
    cameras = wanted["camera"]
    if not isinstance(cameras, list) or not all(isinstance(camera, str) for camera in cameras):
        raise InvalidRequest(f"filter 'camera' must be a list of texts, got {cameras!r}")
    return frozenset(cameras)


def padded(values: np.ndarray, length: int) -> np.ndarray:
    """`values` [K, ...] followed by NaN up to `length`."""
    rest = np.full((length - len(values), *values.shape[1:]), np.nan, np.float32)
    return np.concatenate([values, rest])
