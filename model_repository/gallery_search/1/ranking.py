"""Exact ranking of the gallery in memory: what gallery_search does, importable without a server."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from averaged_table import AveragedTable
from filters import EVERYTHING
from gallery import Gallery
from gallery_row import Cancelled
from match_law import UNCALIBRATED, MatchLaw, stated_groups
from par_distance import PAR_DISTANCES, ROUND_OFF
from query import Query
from row_table import RowTable
from served_model import ServedModel
from tracks import Track, TrackIndex, frames_json, ranked_tracks

QUERIES_A_PASS = 16
ROWS_A_PASS = 16_384


@dataclass(frozen=True)
class Hits:
    """The K best rows, best first, ties by id; arrays as in the wire's `attribute_search`, float32.

    Where tracks are ranked, a hit is the best image of its track and `frames` lists the others.
    """

    ids: list[str]
    metadata: list[str]
    distances: np.ndarray
    par_distances: np.ndarray
    embedding_distances: np.ndarray
    terms: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray
    frames: list[str]
    verdict: str


@dataclass(frozen=True)
class Measured:
    """Distances of rows [n]: fused, float32, and its two summands before the weight, float64."""

    distances: np.ndarray
    par: np.ndarray
    apart: np.ndarray


class Ranking:
    """Ranks the rows of a gallery, kept up to date with its file; for one thread at a time."""

    def __init__(self, gallery: Gallery, model: ServedModel) -> None:
        """Load every row of `gallery`."""
        self._gallery = gallery
        self._model = model
        self._version = -1
        self._change = 0
        self._par = PAR_DISTANCES[model.par_distance]
        self._law = MatchLaw.of(model)
        self._table = AveragedTable(model, self._par) if model.neighbours else RowTable(model, self._par)
        self._tracks = (0, TrackIndex(self._table))
        self.refresh()

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._table)

    def refresh(self) -> None:
        """Take over what other connections committed since the last call."""
        version = self._gallery.version()
        if version == self._version:
            return
        with self._gallery.snapshot() as snapshot:
            for rows in snapshot.rows_after(self._change):
                self._table.put(rows)
            for number in snapshot.deleted_after(self._change):
                self._table.drop(number)
            self._change = snapshot.change
        self._table.settle()
        self._version = version

    def search(self, queries: Sequence[Query]) -> list[Hits | Cancelled]:
        """Rank the whole gallery for each query, exactly; nothing more is done for one whose caller has gone.

        Raises:
            InvalidRequest: a query's vector, weight, k or threshold is out of range.
        """
        for query in queries:
            query.check(self._model)
        self.refresh()
        answers: list[Hits | Cancelled] = []
        for start in range(0, len(queries), QUERIES_A_PASS):
            answers += self._search_together(queries[start : start + QUERIES_A_PASS])
        return answers

    def _search_together(self, queries: Sequence[Query]) -> list[Hits | Cancelled]:
        """One pass over the blocks for several queries: a row is read from memory once for all of them."""
        gone = {cancelled: cancelled() for cancelled in {query.cancelled for query in queries}}
        waiting = [query for query in queries if not gone[query.cancelled]]
        found = iter(self._rank(waiting) if waiting else ())
        return [
            Cancelled("the caller no longer waits for this search") if gone[query.cancelled] else next(found)
            for query in queries
        ]

    def _rank(self, queries: Sequence[Query]) -> list[Hits]:
        known = np.stack([query.known for query in queries])
        stated = np.stack([query.attributes for query in queries])
        cosines = np.stack([query.embedding for query in queries]) @ self._table.embeddings.T
        sums = self._par.query_weights(stated, known) @ self._table.columns.T
        sums += self._par.offset(stated, known)
        # Queries of one request share their filter.
        masks = {id(query.filter): query.filter.mask(self._table) for query in queries if query.filter != EVERYTHING}
        return [
            self._best(query, masks.get(id(query.filter)), *each)
            for query, *each in zip(queries, cosines, sums, strict=True)
        ]

    def _best(self, query: Query, kept: np.ndarray | None, cosines: np.ndarray, sums: np.ndarray) -> Hits:
        """The k best rows or tracks, given float32 cosines and sums of PAR terms, both [rows].

        float32 narrows the gallery to the rows that can be among the k best for certain; these are measured again in
        float64, so that neither rounding nor cancellation decides a rank.
        """
        nearest, farthest = self._bounds(query, cosines, sums)
        images = len(self)
        if kept is not None:
            nearest[~kept] = np.inf
            farthest[~kept] = np.inf
            images = int(kept.sum())
        if not images:
            return self._hits(query, np.empty(0, np.intp), images)
        if query.by is not None:
            return self._best_tracks(query, nearest, farthest, images)
        rows = np.flatnonzero(nearest <= _kth(farthest, min(query.k, images)))
        distances = self._measure(query, rows).distances
        if len(rows) > query.k:
            within = distances <= _kth(distances, query.k)
            rows, distances = rows[within], distances[within]
        order = sorted(range(len(rows)), key=lambda i: (distances[i], self._table.ids[rows[i]]))
        return self._hits(query, rows[order[: query.k]], images)

    def _best_tracks(self, query: Query, nearest: np.ndarray, farthest: np.ndarray, images: int) -> Hits:
        """As `_best`, of tracks: the bounds [rows] of their images, infinite where a filter drops them, bound them."""
        index, mean = self._track_index(), query.by == "mean"
        least, most = (index.mean(each) if mean else index.best(each) for each in (nearest, farthest))
        limit = _kth(most, min(query.k, int(np.isfinite(most).sum())))
        # A mean is rounded once more than its images are.
        candidates = least <= limit + 4 * ROUND_OFF * abs(limit)
        rows = np.flatnonzero(candidates[index.tracks] & np.isfinite(nearest))
        measured = self._measure(query, rows)
        found = ranked_tracks(index.tracks[rows], rows, measured.distances, self._table.ids, mean)[: query.k]
        return self._track_hits(query, found, images)

    def _track_index(self) -> TrackIndex:
        """The rows by track, sorted again when they have changed."""
        if self._tracks[0] != self._table.changes:
            self._tracks = (self._table.changes, TrackIndex(self._table))
        return self._tracks[1]

    def _bounds(self, query: Query, cosines: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest distance [rows] that float32 rounding leaves possible.

        A sum of m products is off by at most m times the round-off times their summed magnitudes (Higham 2002, 3.1).
        """
        model = self._model
        magnitude = self._table.largest_norm * float(np.linalg.norm(query.embedding))
        cosine_error = (model.embedding_size + 2) * ROUND_OFF * magnitude
        sum_error = np.float32(self._par.sum_error(query.known))
        scale = self._weight(query) / model.max_par
        slack = 8 * ROUND_OFF * (scale * self._par.largest(model.attribute_count) + (1 + magnitude) / model.max_emb)
        slack += cosine_error / model.max_emb
        apart = (1 - cosines) / np.float32(model.max_emb)
        nearest = self._par.finish(sums - sum_error) * np.float32(scale)
        farthest = self._par.finish(sums + sum_error) * np.float32(scale)
        nearest += apart - np.float32(slack)
        farthest += apart + np.float32(slack)
        return nearest, farthest

    def _measure(self, query: Query, rows: np.ndarray) -> Measured:
        """How far `rows` are, computed in float64.

        Sums run along each row, not through BLAS: equal rows then get equal distances wherever they lie.
        """
        model = self._model
        par, apart = np.empty(len(rows)), np.empty(len(rows))
        for start in range(0, len(rows), ROWS_A_PASS):
            part = slice(start, start + ROWS_A_PASS)
            terms = self._par.terms(query.attributes, query.known, self._table.scores[rows[part]])
            par[part] = self._par.finish(terms.sum(axis=1)) / model.max_par
            products = self._table.embeddings[rows[part]].astype(np.float64) * query.embedding
            apart[part] = (1 - products.sum(axis=1)) / model.max_emb
        return Measured((self._weight(query) * par + apart).astype(np.float32), par, apart)

    def _hits(self, query: Query, rows: np.ndarray, images: int) -> Hits:
        """The rows, best first, of the `images` that the filter keeps."""
        table, measured = self._table, self._measure(query, rows)
        probabilities, verdict = self._judge(query, measured, images)
        scores = table.scores[rows]
        return Hits(
            [table.ids[row] for row in rows],
            [table.metadata[row] for row in rows],
            measured.distances,
            measured.par.astype(np.float32),
            measured.apart.astype(np.float32),
            self._par.terms(query.attributes, query.known, scores).astype(np.float32),
            scores,
            probabilities.astype(np.float32),
            ["[]"] * len(rows),
            verdict,
        )

    def _track_hits(self, query: Query, tracks: Sequence[Track], images: int) -> Hits:
        """The best image of each track, with the distances of the track."""
        table = self._table
        hits = self._hits(query, np.array([track.rows[0] for track in tracks], np.intp), images)
        measured = [self._measure(query, track.rows) for track in tracks]
        frames = [
            frames_json([table.ids[row] for row in track.rows], each.distances)
            for track, each in zip(tracks, measured, strict=True)
        ]
        if query.by == "best":
            return replace(hits, frames=frames)
        return replace(
            hits,
            frames=frames,
            distances=np.array([track.distance for track in tracks], np.float32),
            par_distances=np.array([each.par.mean() for each in measured], np.float32),
            embedding_distances=np.array([each.apart.mean() for each in measured], np.float32),
        )

    def _judge(self, query: Query, measured: Measured, images: int) -> tuple[np.ndarray, str]:
        """The probability of each measured hit, NaN where there is none, and the verdict on the first."""
        model, stated = self._model, stated_groups(query.known, self._model.group_sizes)
        if self._law is None or not stated:
            return np.full(len(measured.par), np.nan), UNCALIBRATED
        distances = measured.par * model.max_par, measured.apart * model.max_emb
        probabilities = self._law.probabilities(*distances, stated, max(1, images))
        return probabilities, self._law.verdict(probabilities, query.threshold)

    def _weight(self, query: Query) -> float:
        return self._model.par_weight if query.par_weight < 0 else query.par_weight


def _kth(values: np.ndarray, k: int) -> float:
    """The k-th smallest value."""
    return np.partition(values, k - 1)[k - 1]
