import numpy as np
import pytest
import torch

from descry.trainer import labels
from descry.trainer.labels import TrainingLabels, match_rows
from descry.trainer.losses import IGNORE
from descry.trainer.schema import UNKNOWN, AttributeGroup, AttributeSchema

SCHEMA = AttributeSchema(
    "labels",
    (
        AttributeGroup("hat", ("no", "yes"), "binary", "head"),
        AttributeGroup("top", ("red", "blue"), "choice", "upper"),
        AttributeGroup("bag", ("backpack", "handbag"), "multi", "carrying"),
    ),
)
ROWS = np.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1], [1, 0, 1, 0, 1], [UNKNOWN, 0, 1, 1, 0]], np.uint8)


def test_categories_are_the_distinct_complete_rows():
    labels = TrainingLabels.of(ROWS, SCHEMA)
    assert labels.categories.tolist() == [[0, 0, 0, 1, 1], [1, 0, 1, 0, 1], [1, 1, 0, 0, 0]]
    assert labels.counts.tolist() == [1, 1, 2]
    assert labels.category_labels(torch.from_numpy(ROWS)).tolist() == [2, 2, 0, 1, IGNORE]


def test_patterns_hold_what_each_group_can_be():
    labels = TrainingLabels.of(ROWS, SCHEMA)
    assert labels.patterns[0].tolist() == [[0], [1]]
    assert labels.patterns[1].tolist() == [[0, 0], [0, 1], [1, 0]]
    assert labels.patterns[2].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert labels.group_labels(torch.from_numpy(ROWS))[4].tolist() == [IGNORE, 1, 2]


def test_no_complete_row_is_refused():
    with pytest.raises(ValueError, match="none of the 1 training rows has all 5 attributes known"):
        TrainingLabels.of(ROWS[4:], SCHEMA)


def test_match_rows_equals_the_loop(monkeypatch):
    torch.manual_seed(0)
    table = torch.unique(torch.randint(0, 2, (20, 6)), dim=0).to(torch.uint8)
    rows = torch.randint(0, 2, (200, 6)).to(torch.uint8)
    rows[::7, 2] = UNKNOWN
    listed = table.tolist()
    expected = [listed.index(row) if row in listed else IGNORE for row in rows.tolist()]
    assert match_rows(rows, table).tolist() == expected
    monkeypatch.setattr(labels, "MATCHED_ROWS", 7)
    assert match_rows(rows, table).tolist() == expected


def test_no_row_is_in_an_empty_table():
    rows = torch.zeros(3, 4, dtype=torch.uint8)
    assert match_rows(rows, rows[:0]).tolist() == [IGNORE] * 3
