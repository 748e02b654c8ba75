"""Exact ranking of the gallery in memory: what gallery_search does, importable without a server."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gallery import Gallery, Rows
from gallery_row import InvalidRequest
from par_distance import PAR_DISTANCES, ROUND_OFF
from served_model import ServedModel

MOST_HITS = 10_000
LARGEST_WEIGHT = 1e6
QUERIES_A_PASS = 16
ROWS_A_PASS = 16_384


@dataclass(frozen=True)
class Query:
    """One search.

    Attributes:
        embedding: float32 [D]; cosine similarity is its inner product with a row's embedding.
        attributes: float32 [N], 0..1.
        known: float32 [N], 1 where `attributes` counts, else 0.
        par_weight: weight of the PAR distance; negative: the weight measured on validation data.
        k: hits wanted, 1 to 10 000.
        cameras: keep these cameras only; None keeps all.
    """

    embedding: np.ndarray
    attributes: np.ndarray
    known: np.ndarray
    par_weight: float
    k: int
    cameras: frozenset[str] | None = None


@dataclass(frozen=True)
class Hits:
    """The K best rows, best first, ties by id; arrays as in the wire's `attribute_search`, float32."""

    ids: list[str]
    metadata: list[str]
    distances: np.ndarray
    par_distances: np.ndarray
    embedding_distances: np.ndarray
    terms: np.ndarray
    scores: np.ndarray


class Ranking:
    """The gallery's vectors in contiguous blocks, kept up to date with its file; for one thread at a time."""

    def __init__(self, gallery: Gallery, model: ServedModel) -> None:
        """Load every row of `gallery`."""
        self._gallery = gallery
        self._model = model
        self._version = -1
        self._change = 0
        self._slots: dict[int, int] = {}
        self._numbers: list[int] = []
        self._ids: list[str] = []
        self._metadata: list[str] = []
        self._camera_codes: dict[str, int] = {}
        self._cameras = np.empty(0, np.int32)
        self._embeddings = np.empty((0, model.embedding_size), np.float32)
        self._par = PAR_DISTANCES[model.par_distance]
        self._scores = np.empty((0, model.attribute_count), np.float32)
        self._columns = np.empty((0, 2 * model.attribute_count), np.float32)
        self._largest_norm = 0.0
        self.refresh()

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._ids)

    def refresh(self) -> None:
        """Take over what other connections committed since the last call."""
        version = self._gallery.version()
        if version == self._version:
            return
        with self._gallery.snapshot() as snapshot:
            for rows in snapshot.rows_after(self._change):
                self._put(rows)
            for number in snapshot.deleted_after(self._change):
                self._drop(number)
            self._change = snapshot.change
        self._version = version

    def search(self, queries: Sequence[Query]) -> list[Hits]:
        """Rank the whole gallery for each query, exactly.

        Raises:
            InvalidRequest: a query's vector, weight or k is out of range.
        """
        for query in queries:
            self.check(query)
        self.refresh()
        hits = []
        for start in range(0, len(queries), QUERIES_A_PASS):
            hits += self._search_together(queries[start : start + QUERIES_A_PASS])
        return hits

    def check(self, query: Query) -> None:
        """Refuse a query that has no ranking."""
        size, count = self._model.embedding_size, self._model.attribute_count
        given = {
            "query": (query.embedding, size),
            "attributes": (query.attributes, count),
            "known": (query.known, count),
        }
        for name, (vector, length) in given.items():
            if vector.shape != (length,):
                raise InvalidRequest(f"{name} must have {length} values, got {vector.size}")
            if not np.isfinite(vector).all():
                raise InvalidRequest(f"{name} holds NaN or infinity")
        if ((query.attributes < 0) | (query.attributes > 1)).any():
            raise InvalidRequest("attributes must lie in 0..1")
        if not np.isin(query.known, (0, 1)).all():
            raise InvalidRequest("known must be 0 or 1")
        if not query.par_weight <= LARGEST_WEIGHT:
            raise InvalidRequest(f"par_weight must be a number up to {LARGEST_WEIGHT:g}, got {query.par_weight:g}")
        if not 1 <= query.k <= MOST_HITS:
            raise InvalidRequest(f"k must be 1 to {MOST_HITS}, got {query.k}")

    def _search_together(self, queries: Sequence[Query]) -> list[Hits]:
        """One pass over the blocks for several queries: a row is read from memory once for all of them."""
        rows = len(self)
        known = np.stack([query.known for query in queries])
        stated = np.stack([query.attributes for query in queries])
        cosines = np.stack([query.embedding for query in queries]) @ self._embeddings[:rows].T
        sums = self._par.query_weights(stated, known) @ self._columns[:rows].T
        sums += self._par.offset(stated, known)
        return [self._best(*each) for each in zip(queries, cosines, sums, strict=True)]

    def _best(self, query: Query, cosines: np.ndarray, sums: np.ndarray) -> Hits:
        """The k best rows, given float32 cosines and sums of PAR terms, both [rows].

        float32 narrows the gallery to the rows that can be among the k best for certain; these are measured again in
        float64, so that neither rounding nor cancellation decides a rank.
        """
        weight = self._weight(query)
        nearest, farthest = self._bounds(query, weight, cosines, sums)
        wanted = min(query.k, len(self))
        if query.cameras is not None:
            codes = [self._camera_codes[camera] for camera in query.cameras if camera in self._camera_codes]
            kept = np.isin(self._cameras[: len(self)], codes)
            nearest[~kept] = np.inf
            farthest[~kept] = np.inf
            wanted = min(wanted, int(kept.sum()))
        if not wanted:
            return self._hits(query, np.empty(0, np.intp))
        limit = np.partition(farthest, wanted - 1)[wanted - 1]
        candidates = np.flatnonzero(nearest <= limit)
        distances = self._measure(query, candidates)[0]
        if len(candidates) > wanted:
            within = distances <= np.partition(distances, wanted - 1)[wanted - 1]
            candidates, distances = candidates[within], distances[within]
        order = sorted(range(len(candidates)), key=lambda i: (distances[i], self._ids[candidates[i]]))
        return self._hits(query, candidates[order[:wanted]])

    def _bounds(
        self, query: Query, weight: float, cosines: np.ndarray, sums: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest distance [rows] that float32 rounding leaves possible.

        A sum of m products is off by at most m times the round-off times their summed magnitudes (Higham 2002, 3.1).
        """
        model = self._model
        magnitude = self._largest_norm * float(np.linalg.norm(query.embedding))
        cosine_error = (model.embedding_size + 2) * ROUND_OFF * magnitude
        sum_error = np.float32(self._par.sum_error(query.known))
        scale = weight / model.max_par
        slack = 8 * ROUND_OFF * (scale * self._par.largest(model.attribute_count) + (1 + magnitude) / model.max_emb)
        slack += cosine_error / model.max_emb
        apart = (1 - cosines) / np.float32(model.max_emb)
        nearest = self._par.finish(sums - sum_error) * np.float32(scale)
        farthest = self._par.finish(sums + sum_error) * np.float32(scale)
        nearest += apart - np.float32(slack)
        farthest += apart + np.float32(slack)
        return nearest, farthest

    def _measure(self, query: Query, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fused, PAR and embedding distance of `rows`, float32 [rows], computed in float64.

        Sums run along each row, not through BLAS: equal rows then get equal distances wherever they lie.
        """
        model = self._model
        par, apart = np.empty(len(rows)), np.empty(len(rows))
        for start in range(0, len(rows), ROWS_A_PASS):
            part = slice(start, start + ROWS_A_PASS)
            terms = self._par.terms(query.attributes, query.known, self._scores[rows[part]])
            par[part] = self._par.finish(terms.sum(axis=1)) / model.max_par
            products = self._embeddings[rows[part]].astype(np.float64) * query.embedding
            apart[part] = (1 - products.sum(axis=1)) / model.max_emb
        fused = self._weight(query) * par + apart
        return fused.astype(np.float32), par.astype(np.float32), apart.astype(np.float32)

    def _hits(self, query: Query, rows: np.ndarray) -> Hits:
        scores = self._scores[rows]
        terms = self._par.terms(query.attributes, query.known, scores).astype(np.float32)
        ids, metadata = [self._ids[row] for row in rows], [self._metadata[row] for row in rows]
        return Hits(ids, metadata, *self._measure(query, rows), terms, scores)

    def _weight(self, query: Query) -> float:
        return self._model.par_weight if query.par_weight < 0 else query.par_weight

    def _put(self, rows: Rows) -> None:
        self._reserve(len(self) + len(rows.numbers))
        slots = [self._slot(number) for number in rows.numbers]
        for slot, id, metadata in zip(slots, rows.ids, rows.metadata, strict=True):
            self._ids[slot], self._metadata[slot] = id, metadata
        codes = [self._camera_codes.setdefault(camera, len(self._camera_codes)) for camera in rows.cameras]
        self._cameras[slots] = codes
        self._embeddings[slots] = rows.embeddings
        self._scores[slots] = rows.scores
        self._columns[slots] = self._par.columns(rows.scores)
        self._largest_norm = max(self._largest_norm, float(np.linalg.norm(rows.embeddings, axis=1).max()))

    def _slot(self, number: int) -> int:
        """Where the row lies; a row not seen before gets the next free place."""
        if number not in self._slots:
            self._slots[number] = len(self._numbers)
            self._numbers.append(number)
            self._ids.append("")
            self._metadata.append("")
        return self._slots[number]

    def _drop(self, number: int) -> None:
        """Take the row out; the last row fills its place."""
        slot = self._slots.pop(number, None)
        if slot is None:
            return
        last = len(self) - 1
        for block in (self._cameras, self._embeddings, self._scores, self._columns):
            block[slot] = block[last]
        self._ids[slot], self._metadata[slot], self._numbers[slot] = (
            self._ids[-1],
            self._metadata[-1],
            self._numbers[-1],
        )
        for column in (self._ids, self._metadata, self._numbers):
            column.pop()
        if slot != last:
            self._slots[self._numbers[slot]] = slot

    def _reserve(self, rows: int) -> None:
        used = len(self)
        self._cameras = _grown(self._cameras, used, rows)
        self._embeddings = _grown(self._embeddings, used, rows)
        self._scores = _grown(self._scores, used, rows)
        self._columns = _grown(self._columns, used, rows)


def _grown(block: np.ndarray, used: int, rows: int) -> np.ndarray:
    """A block with room for `rows`; at least doubled when it grows, so that n insertions copy O(n) values."""
    if rows <= len(block):
        return block
    larger = np.zeros((max(rows, 2 * len(block)), *block.shape[1:]), block.dtype)
    larger[:used] = block[:used]
    return larger
