"""A gallery whose rows are searched as the mean of themselves and their nearest rows (database-side augmentation).

The weights are max(cosine, 0)^3, and the means are not made unit rows again: what the trainer measures with
`fusion.neighbours`. The means are exact at any time: when rows come or go, those whose nearest rows change are averaged
again.
"""

import numpy as np
from gallery import Rows
from par_distance import ParDistance
from row_table import RowTable, grown
from served_model import ServedModel

POWER = 3
ROWS_A_BLOCK = 1024
NOBODY = -1


class AveragedTable(RowTable):
    """Rows by slot, as `RowTable`; its embeddings and scores are the means, once `settle` has been called."""

    def __init__(self, model: ServedModel, par: ParDistance) -> None:
        """An empty table of rows of `model`, which says how many neighbours count."""
        super().__init__(model, par)
        self._count = model.neighbours + 1
        self._own_embeddings, self._own_scores = self._embeddings, self._scores
        # Numbers of the rows that each row is the mean of, and the cosine of the farthest of them.
        self._near = np.zeros((0, self._count), np.int64)
        self._least = np.zeros(0, np.float32)
        self._changed: set[int] = set()

    def put(self, rows: Rows) -> None:
        """See `RowTable`."""
        super().put(rows)
        slots = [self._slots[number] for number in rows.numbers]
        self._own_embeddings = grown(self._own_embeddings, len(self))
        self._own_scores = grown(self._own_scores, len(self))
        self._near, self._least = grown(self._near, len(self)), grown(self._least, len(self))
        self._own_embeddings[slots], self._own_scores[slots] = rows.embeddings, rows.scores
        self._changed.update(rows.numbers)

    def drop(self, number: int) -> None:
        """See `RowTable`."""
        if number in self._slots:
            self._changed.add(number)
        super().drop(number)

    def settle(self) -> None:
        """Average again what has changed since the last call."""
        if not self._changed:
            return
        affected = self._affected()
        for slots in np.array_split(affected, len(affected) // ROWS_A_BLOCK + 1):
            self._average(slots)
        self._changed.clear()

    def _blocks(self) -> list[np.ndarray]:
        return [*super()._blocks(), self._own_embeddings, self._own_scores, self._near, self._least]

    def _affected(self) -> np.ndarray:
        """Slots of the rows whose mean is another one now: int64 [n]."""
        rows = len(self)
        own = self._own_embeddings[:rows]
        changed = np.array([self._slots[number] for number in self._changed if number in self._slots], np.int64)
        affected = np.isin(self._near[:rows], list(self._changed)).any(axis=1)
        affected[changed] = True
        # Where the gallery was smaller than the neighbourhood, whoever comes is a neighbour.
        affected |= (self._near[:rows] == NOBODY).any(axis=1)
        for start in range(0, len(changed), ROWS_A_BLOCK):
            if affected.all():
                break
            cosines = own[changed[start : start + ROWS_A_BLOCK]] @ own.T
            affected |= (cosines >= self._least[:rows]).any(axis=0)
        return np.flatnonzero(affected)

    def _average(self, slots: np.ndarray) -> None:
        if not len(slots):
            return
        rows = len(self)
        own = self._own_embeddings[:rows]
        count = min(self._count, rows)
        cosines = own[slots] @ own.T
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(cosines, nearest, axis=1)
        weights = np.maximum(values, 0) ** POWER
        weights /= weights.sum(axis=1, keepdims=True)
        numbers = np.array(self._numbers)
        self._near[slots] = NOBODY
        self._near[slots, :count] = numbers[nearest]
        self._least[slots] = values.min(axis=1)
        self._embeddings[slots] = np.einsum("nk,nkd->nd", weights, own[nearest])
        self._scores[slots] = np.einsum("nk,nkd->nd", weights, self._own_scores[nearest]).clip(0, 1)
        self._columns[slots] = self._par.columns(self._scores[slots])
