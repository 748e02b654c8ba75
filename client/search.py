"""Asks a Descry server over gRPC: search by description or by photo, describe and match.

This file and docs/wire.md say the same thing; nothing here depends on how the server computes its answers.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from descry.client.connection import bytes_tensor
from descry.client.errors import GalleryEmpty, InvalidRequest
from descry.client.gallery import GalleryClient
from descry.client.images import ImageSource, image_bytes
from descry.client.queries import Query, combine, merge
from descry.client.results import UNCALIBRATED, Description, Frame, Hit, Match, ModelInfo, Ranking
from descry.client.schema import Claims, Schema
from descry.client.selection import Scalar, Selection, Time, TrackDistance, weight_tensor
from descry.client.statements import Statements

MOST_QUERIES = 1024  # of one request, docs/wire.md

# What one description says, or what each of several witnesses says of the same person.
Described = Statements | Sequence[Statements]


class SearchClient(GalleryClient):
    """Searches one server's gallery, and keeps it; usable from several threads, and as a context manager.

    Every method raises a `DescryError`: `InvalidRequest`, `ServerUnavailable`, `DeadlineExceeded` or `ServerFailed`.
    """

    def __enter__(self) -> "SearchClient":
        """Return the client itself."""
        return self

    @cached_property
    def model(self) -> ModelInfo:
        """The server's model, asked once."""
        return ModelInfo.from_json(self.info({"about": "model"}))

    @property
    def schema(self) -> Schema:
        """The server's attribute schema."""
        return self.model.schema

    def search(
        self,
        statements: Described,
        k: int = 20,
        par_weight: float | None = None,
        cameras: Sequence[str] | None = None,
        *,
        tracks: Sequence[str] | None = None,
        start: Time | None = None,
        end: Time | None = None,
        metadata: Mapping[str, Sequence[Scalar]] | None = None,
        by_track: TrackDistance | None = None,
        threshold: float | None = None,
    ) -> Ranking:
        """Rank the gallery by a description.

        Args:
            statements: `{"gender": "female", "upper_color": AnyOf("red", "pink")}`; what is left out or `unknown` does
                not count. A list of such is what several witnesses say of one person, merged into one ranking.
            k: hits wanted, 1 to 10 000.
            par_weight: weight of the attribute distance, >= 0; None is the weight measured with the model.
            cameras: keep these cameras only.
            tracks: keep these tracks only.
            start: keep rows from this time on; ISO 8601, in UTC where it names no zone.
            end: keep rows before this time.
            metadata: keep rows whose metadata has one of the values for each key: `{"weather": ["rain", "snow"]}`.
            by_track: rank tracks instead of images, by the distance of their `best` image or the `mean` of all.
            threshold: probability of the first hit, 0..1, below which the verdict is `no match`; None is the one
                stored with the model.

        Returns:
            At most `k` hits, best first; empty when no row passes the filter.

        Raises:
            GalleryEmpty: the gallery has no row at all.
        """
        limits = Selection(k, par_weight, cameras, tracks, start, end, metadata, by_track, threshold)
        return self._search([statements], limits)[0]

    def search_many(
        self,
        descriptions: Sequence[Described],
        k: int = 20,
        par_weight: float | None = None,
        cameras: Sequence[str] | None = None,
        *,
        tracks: Sequence[str] | None = None,
        start: Time | None = None,
        end: Time | None = None,
        metadata: Mapping[str, Sequence[Scalar]] | None = None,
        by_track: TrackDistance | None = None,
        threshold: float | None = None,
    ) -> list[Ranking]:
        """As `search`, of up to 1024 descriptions in one request; their number times `k` is at most 100 000.

        Where tracks are ranked it is at most 10 000. A timeout also ends the work on the server.
        """
        if not 1 <= len(descriptions) <= MOST_QUERIES:
            raise InvalidRequest(f"one call takes 1 to {MOST_QUERIES} descriptions, not {len(descriptions)}")
        limits = Selection(k, par_weight, cameras, tracks, start, end, metadata, by_track, threshold)
        return self._search(descriptions, limits)

    def similar(
        self,
        image: ImageSource,
        statements: Described | None = None,
        k: int = 20,
        par_weight: float | None = None,
        cameras: Sequence[str] | None = None,
        *,
        tracks: Sequence[str] | None = None,
        start: Time | None = None,
        end: Time | None = None,
        metadata: Mapping[str, Sequence[Scalar]] | None = None,
        by_track: TrackDistance | None = None,
    ) -> Ranking:
        """Rank the gallery by likeness to a photo, but with what `statements` say where they are given.

        `{"upper_color": "red"}` asks for this person with a red top; what is not stated stays as in the photo. The rest
        is as in `search`. There are no probabilities: they are calibrated for descriptions alone.
        """
        limits = Selection(k, par_weight, cameras, tracks, start, end, metadata, by_track)
        witnesses = self._parse(statements or {})
        query, photo = self._merge(witnesses), bytes_tensor(image_bytes(image))[np.newaxis]
        if query.plain:
            answer = self.infer("similar_search", _stated([query]) | limits.tensors(1) | {"image": photo})
        else:
            seen = self.infer("describe_image", {"image": photo})["embedding"]
            sought = self._encode([query], "change_query", seen)
            answer = self.infer("gallery_search", {"query": sought} | _stated([query]) | limits.tensors(1))
        return self._rankings(answer | {"probabilities": None, "verdict": None}, [witnesses])[0]

    def describe(self, image: ImageSource) -> Description:
        """Read the attributes of a photo."""
        answer = self.infer_one("describe_image", {"image": bytes_tensor(image_bytes(image))})
        scores = answer["scores"]
        return Description(self.schema.predict(scores, self.model.calibrated(scores)), scores, answer["embedding"])

    def match(self, image: ImageSource, statements: Described, par_weight: float | None = None) -> Match:
        """Measure how far a photo is from a description, or from what several witnesses say of one person."""
        witnesses = self._parse_stated(statements)
        query, photo, weight = (
            self._merge(witnesses),
            bytes_tensor(image_bytes(image))[np.newaxis],
            weight_tensor(par_weight),
        )
        if query.plain:
            answer = self.infer("match", _stated([query]) | {"image": photo, "par_weight": weight})
        else:
            answer = self._fuse(query, self.infer("describe_image", {"image": photo}), weight)
        scores, terms = answer["scores"][0], answer["terms"][0]
        return Match(
            float(answer["distance"][0, 0]),
            float(answer["par_distance"][0, 0]),
            float(answer["embedding_distance"][0, 0]),
            scores,
            terms,
            self.schema.explain(witnesses, scores, terms, self.model.calibrated(scores)),
        )

    def _search(self, descriptions: Sequence[Described], limits: Selection) -> list[Ranking]:
        """A single request for one plain description; else one that encodes and one that ranks.

        So do many plain ones: Triton 24.10 does not tell a step of an ensemble that the caller has gone.
        """
        if limits.threshold is not None and self.model.calibration is None:
            raise InvalidRequest("the server's model was not calibrated: without probabilities there is no threshold")
        said = [self._parse_stated(described) for described in descriptions]
        queries = [self._merge(witnesses) for witnesses in said]
        tensors = _stated(queries) | limits.tensors(len(queries))
        if len(queries) == 1 and queries[0].plain:
            return self._rankings(self.infer("attribute_search", tensors), said)
        sought = self._encode(queries, "attribute_encoder")
        return self._rankings(self.infer("gallery_search", {"query": sought} | tensors), said)

    def _parse(self, described: Described) -> list[Claims]:
        """What each witness claims; parsed here, so that what the caller does to its statements later is no matter."""
        return [self.schema.parse(one) for one in ([described] if isinstance(described, Mapping) else described)]

    def _parse_stated(self, described: Described) -> list[Claims]:
        """As `_parse`, of a query that rests on its statements alone, so that there must be one of each witness."""
        witnesses = self._parse(described)
        if not witnesses or not all(witnesses):
            raise InvalidRequest(f"nothing is stated; state at least one attribute:\n{self.schema.describe()}")
        return witnesses

    def _merge(self, witnesses: Sequence[Claims]) -> Query:
        return merge([self.schema.encode_claims(claims) for claims in witnesses])

    def _encode(self, queries: Sequence[Query], model: str, *before: np.ndarray) -> np.ndarray:
        """Query embeddings [B, D] by `model`, whose inputs are rows `before` [1, D], attributes and known."""
        attributes = np.concatenate([query.plain_attributes for query in queries])
        known = np.concatenate([query.plain_known for query in queries])
        embeddings = []
        for start in range(0, len(attributes), MOST_QUERIES):
            part = attributes[start : start + MOST_QUERIES], known[start : start + MOST_QUERIES]
            columns = [*(np.repeat(row, len(part[0]), axis=0) for row in before), *part]
            inputs = {f"INPUT__{index}": column for index, column in enumerate(columns)}
            embeddings.append(self.infer(model, inputs)["OUTPUT__0"])
        return combine(queries, np.concatenate(embeddings))

    def _fuse(self, query: Query, seen: Mapping[str, np.ndarray], weight: np.ndarray) -> dict[str, np.ndarray]:
        """What `match` answers, of a query that is not plain and what `describe_image` says of a photo."""
        sought = self._encode([query], "attribute_encoder")
        stated = query.attributes[np.newaxis], query.known[np.newaxis]
        columns = (sought, *stated, weight, seen["embedding"], seen["scores"])
        answer = self.infer("fuse_distances", {f"INPUT__{index}": column for index, column in enumerate(columns)})
        names = ("distance", "par_distance", "embedding_distance", "terms")
        return {name: answer[f"OUTPUT__{index}"] for index, name in enumerate(names)} | {"scores": seen["scores"]}

    def _rankings(self, answer: Mapping[str, Any], said: Sequence[Sequence[Claims]]) -> list[Ranking]:
        rankings = [self._ranking(answer, row, witnesses) for row, witnesses in enumerate(said)]
        if not any(rankings) and not self.stats().rows:
            raise GalleryEmpty(f"the gallery at {self.url} is empty; fill it with `descry index FOLDER`")
        return rankings

    def _ranking(self, answer: Mapping[str, Any], row: int, witnesses: Sequence[Claims]) -> Ranking:
        """Read one row of a search's answer; empty ids are padding."""
        ids = answer["ids"][row]
        calibrated = self.model.calibrated(answer["scores"][row])
        probabilities = None if answer["probabilities"] is None else answer["probabilities"][row]
        hits = [
            Hit(
                index + 1,
                id.decode(),
                float(answer["distances"][row, index]),
                float(answer["par_distances"][row, index]),
                float(answer["embedding_distances"][row, index]),
                json.loads(answer["metadata"][row, index]),
                scores := answer["scores"][row, index],
                terms := answer["terms"][row, index],
                _number(probabilities, index),
                tuple(Frame(one["id"], one["distance"]) for one in json.loads(answer["frames"][row, index])),
                partial(self.schema.explain, witnesses, scores, terms, calibrated[index]),
            )
            for index, id in enumerate(ids)
            if id
        ]
        return Ranking(hits, UNCALIBRATED if answer["verdict"] is None else answer["verdict"][row, 0].decode())


def _stated(queries: Sequence[Query]) -> dict[str, np.ndarray]:
    """What queries state, as every model takes it."""
    return {name: np.stack([getattr(query, name) for query in queries]) for name in ("attributes", "known")}


def _number(values: np.ndarray | None, index: int) -> float | None:
    """A number that may be absent; NaN on the wire."""
    return None if values is None or np.isnan(values[index]) else float(values[index])
