"""Rows by track: how far a track is from a description, given how far its images are."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from row_table import RowTable

FRAMES_SHOWN = 100


class TrackIndex:
    """Which rows are of the same track; a row without one is a track of its own."""

    def __init__(self, table: RowTable) -> None:
        """Sort the rows of the table by track."""
        rows = len(table)
        codes = table.tracks.codes[:rows]
        # Rows without a track get numbers that no track has.
        owners = np.where(codes > 0, codes, codes.max(initial=0) + 1 + np.arange(rows))
        self._order = np.argsort(owners, kind="stable")
        ordered = owners[self._order]
        self._starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        self.tracks = np.empty(rows, np.intp)
        self.tracks[self._order] = np.cumsum(np.diff(ordered, prepend=-1) > 0) - 1

    def best(self, distances: np.ndarray) -> np.ndarray:
        """The least distance of each track, given those of all rows."""
        return np.minimum.reduceat(distances[self._order], self._starts)

    def mean(self, distances: np.ndarray) -> np.ndarray:
        """The mean distance of each track's rows that are not infinitely far: float64, infinite where all are."""
        ordered = distances[self._order].astype(np.float64)
        near = np.isfinite(ordered)
        counts = np.add.reduceat(near.astype(np.int64), self._starts)
        sums = np.add.reduceat(np.where(near, ordered, 0), self._starts)
        return np.divide(sums, counts, out=np.full(len(counts), np.inf), where=counts > 0)


@dataclass(frozen=True)
class Track:
    """A ranked track.

    Attributes:
        rows: its images, nearest first, ties by id.
        distance: of the track, float32.
    """

    rows: np.ndarray
    distance: np.float32


def ranked_tracks(
    tracks: np.ndarray, rows: np.ndarray, distances: np.ndarray, ids: Sequence[str], mean: bool
) -> list[Track]:
    """The tracks of `rows`, nearest first, ties by the id of the best image.

    Args:
        tracks: the track of each row [n].
        rows: their places in the table [n].
        distances: float32 [n].
        ids: by place in the table.
        mean: a track is as far as its images in the mean, not as its best one.
    """
    names = [ids[row] for row in rows]
    order = sorted(range(len(rows)), key=lambda i: (tracks[i], distances[i], names[i]))
    starts = np.flatnonzero(np.diff(tracks[order], prepend=-1))
    parts = np.split(np.array(order, np.intp), starts[1:]) if len(order) else []
    # In one order of summation, so that tracks of equal distances tie.
    found = [
        Track(rows[part], np.float32(distances[part].mean(dtype=np.float64)) if mean else distances[part[0]])
        for part in parts
    ]
    return sorted(found, key=lambda track: (track.distance, ids[track.rows[0]]))


def frames_json(ids: Sequence[str], distances: np.ndarray) -> str:
    """The first of a track's images and their distances, for the wire."""
    shown = zip(ids[:FRAMES_SHOWN], distances[:FRAMES_SHOWN], strict=True)
    # Through text: the shortest number that is this float32.
    return json.dumps([{"id": id, "distance": float(str(distance))} for id, distance in shown])
