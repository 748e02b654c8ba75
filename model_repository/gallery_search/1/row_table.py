"""The gallery's rows in memory: one slot a row, in contiguous blocks."""

import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from gallery import Rows
from gallery_row import microseconds
from par_distance import ParDistance
from served_model import ServedModel

METADATA_COLUMNS = 16
NO_TIME = np.iinfo(np.int64).min
# A metadata value with its type: in JSON `true` is not 1, in Python it is.
Scalar = tuple[type, str | int | float | bool]


def scalar(value: Any) -> Scalar | None:
    """A text, number or boolean of JSON, so that 1 equals 1.0 but not true; None of anything else."""
    if isinstance(value, bool) or isinstance(value, str):
        return type(value), value
    return (float, value) if isinstance(value, (int, float)) else None


class CodedColumn:
    """One hashable value a slot, kept as a number; 0 is that of `absent`."""

    def __init__(self, absent: Hashable) -> None:
        """An empty column."""
        self._absent = absent
        self._numbers: dict[Hashable, int] = {absent: 0}
        self._next = 1
        self.codes = np.zeros(0, np.int64)

    def put(self, slots: Sequence[int], values: Iterable[Hashable], rows: int) -> None:
        """Set the values of `slots`, in a table of `rows`."""
        self.codes = grown(self.codes, rows)
        self.codes[slots] = [self._number(value) for value in values]
        # Values that no row has any more, such as the tracks of last month, would pile up.
        if len(self._numbers) > 2 * rows + 1000:
            used = set(self.codes[:rows].tolist()) | {0}
            self._numbers = {value: number for value, number in self._numbers.items() if number in used}

    def among(self, values: Iterable[Hashable], rows: int) -> np.ndarray:
        """Whether each of the first `rows` slots has one of `values`, bool [rows]."""
        numbers = [self._numbers[value] for value in values if value in self._numbers]
        return np.isin(self.codes[:rows], numbers)

    def _number(self, value: Hashable) -> int:
        if value not in self._numbers:
            self._numbers[value] = self._next
            self._next += 1
        return self._numbers[value]


class RowTable:
    """Rows of the gallery by slot; the last row takes the slot of one that is dropped.

    Attributes:
        ids, metadata: a text a row.
        cameras, tracks: coded, the empty text where a row has none.
        largest_norm: of the embeddings that were ever put.
        changes: counts what was put and dropped.
    """

    def __init__(self, model: ServedModel, par: ParDistance) -> None:
        """An empty table of rows of `model`."""
        self._par = par
        self._slots: dict[int, int] = {}
        self._numbers: list[int] = []
        self.ids: list[str] = []
        self.metadata: list[str] = []
        self.cameras, self.tracks = CodedColumn(""), CodedColumn("")
        self._metadata_columns: dict[str, CodedColumn] = {}
        self._times = np.zeros(0, np.int64)
        self._embeddings = np.zeros((0, model.embedding_size), np.float32)
        self._scores = np.zeros((0, model.attribute_count), np.float32)
        self._columns = np.zeros((0, 2 * model.attribute_count), np.float32)
        self.largest_norm = 0.0
        self.changes = 0

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ids)

    @property
    def embeddings(self) -> np.ndarray:
        """float32 [rows, D]."""
        return self._embeddings[: len(self)]

    @property
    def scores(self) -> np.ndarray:
        """float32 [rows, N], PAR scores."""
        return self._scores[: len(self)]

    @property
    def columns(self) -> np.ndarray:
        """float32 [rows, 2 N] of `ParDistance.columns`."""
        return self._columns[: len(self)]

    def between(self, start: int | None, end: int | None) -> np.ndarray:
        """Whether each row has a time from `start` on and before `end`, in microseconds since 1970: bool [rows]."""
        times = self._times[: len(self)]
        kept = times != NO_TIME
        if start is not None:
            kept &= times >= start
        return kept if end is None else kept & (times < end)

    def metadata_column(self, key: str) -> CodedColumn:
        """The values of a metadata key, as `scalar`; read from the JSON once and then kept up to date."""
        column = self._metadata_columns.pop(key, None)
        if column is None:
            column = CodedColumn(None)
            column.put(range(len(self)), map(_reader(key), self.metadata), len(self))
        # The longest unused one goes: a caller may ask for any number of keys.
        self._metadata_columns[key] = column
        if len(self._metadata_columns) > METADATA_COLUMNS:
            del self._metadata_columns[next(iter(self._metadata_columns))]
        return column

    def put(self, rows: Rows) -> None:
        """Add rows, or replace those with the same number."""
        slots = [self._slot(number) for number in rows.numbers]
        count = len(self)
        for slot, id, metadata in zip(slots, rows.ids, rows.metadata, strict=True):
            self.ids[slot], self.metadata[slot] = id, metadata
        self.cameras.put(slots, rows.cameras, count)
        self.tracks.put(slots, (track or "" for track in rows.tracks), count)
        for key, column in self._metadata_columns.items():
            column.put(slots, map(_reader(key), rows.metadata), count)
        self._reserve(count)
        self._times[slots] = [microseconds("time", time) if time else NO_TIME for time in rows.times]
        self._embeddings[slots] = rows.embeddings
        self._scores[slots] = rows.scores
        self._columns[slots] = self._par.columns(rows.scores)
        self.largest_norm = max(self.largest_norm, float(np.linalg.norm(rows.embeddings, axis=1).max()))
        self.changes += 1

    def drop(self, number: int) -> None:
        """Take the row out, if there is one."""
        slot = self._slots.pop(number, None)
        if slot is None:
            return
        last = len(self) - 1
        for block in self._blocks():
            block[slot] = block[last]
        for texts in (self.ids, self.metadata):
            texts[slot] = texts[last]
            texts.pop()
        self._numbers[slot] = self._numbers[last]
        self._numbers.pop()
        if slot != last:
            self._slots[self._numbers[slot]] = slot
        self.changes += 1

    def settle(self) -> None:
        """Make what is searched agree with the rows, once several were put or dropped."""

    def _blocks(self) -> list[np.ndarray]:
        """Everything that has a value a slot."""
        coded = [column.codes for column in (self.cameras, self.tracks, *self._metadata_columns.values())]
        return [*coded, self._times, self._embeddings, self._scores, self._columns]

    def _slot(self, number: int) -> int:
        """Where the row lies; a row not seen before gets the next free place."""
        if number not in self._slots:
            self._slots[number] = len(self._numbers)
            self._numbers.append(number)
            self.ids.append("")
            self.metadata.append("")
        return self._slots[number]

    def _reserve(self, rows: int) -> None:
        self._times = grown(self._times, rows)
        self._embeddings = grown(self._embeddings, rows)
        self._scores = grown(self._scores, rows)
        self._columns = grown(self._columns, rows)


def grown(block: np.ndarray, rows: int) -> np.ndarray:
    """A block with room for `rows`; at least doubled when it grows, so that n insertions copy O(n) values."""
    if rows <= len(block):
        return block
    larger = np.zeros((max(rows, 2 * len(block)), *block.shape[1:]), block.dtype)
    larger[: len(block)] = block
    return larger


def _reader(key: str) -> Callable[[str], Scalar | None]:
    return lambda metadata: scalar(json.loads(metadata).get(key))
