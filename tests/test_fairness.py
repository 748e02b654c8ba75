"""Results apart by the values of an attribute."""

import pytest
import torch

from descry.trainer.fairness import protected_groups, recognition_by_value, search_by_value, values_of
from descry.trainer.metrics import SEARCH_METRICS
from descry.trainer.schema import UNKNOWN, AttributeGroup, AttributeSchema

SCHEMA = AttributeSchema(
    "people",
    (
        AttributeGroup("gender", ("male", "female"), "binary", "identity"),
        AttributeGroup("age", ("young", "adult", "old"), "choice", "identity"),
        AttributeGroup("hat", ("no", "yes"), "binary", "head"),
    ),
)
# gender | young adult old | hat
LABELS = torch.tensor(
    [[0, 1, 0, 0, 0], [0, 0, 1, 0, 1], [1, 0, 1, 0, 0], [1, 0, 1, 0, 1], [UNKNOWN, 1, 0, 0, UNKNOWN]],
    dtype=torch.uint8,
)


def test_values_and_who_has_them():
    assert {value: rows.tolist() for value, rows in values_of(LABELS, SCHEMA, "gender")} == {
        "male": [True, True, False, False, False],
        "female": [False, False, True, True, False],
    }
    assert {value: rows.sum().item() for value, rows in values_of(LABELS, SCHEMA, "age")} == {
        "young": 2,
        "adult": 3,
        "old": 0,
    }
    assert protected_groups(SCHEMA) == ["gender", "age"]


def test_searches_apart_by_gender_and_age():
    measured = torch.zeros(5, len(SEARCH_METRICS), dtype=torch.float64)
    measured[:, 0] = torch.tensor([1, 1, 1, 0, 0])
    measured[:, SEARCH_METRICS.index("mAP")] = torch.tensor([0.8, 0.6, 0.4, 0.2, torch.nan])
    measured[4] = torch.nan
    found = search_by_value(measured, LABELS, SCHEMA)
    assert {value: metrics["rank1"] for value, metrics in found["gender"]["values"].items()} == {
        "male": 1,
        "female": 0.5,
    }
    assert found["gender"]["gap"] == pytest.approx({"rank1": 0.5, "mAP": 0.4})
    assert found["gender"]["values"]["female"]["queries"] == 2
    low, high = found["gender"]["values"]["female"]["intervals"]["rank1"]
    assert (low, high) == (0, 1)
    assert set(found["age"]["values"]) == {"young", "adult"}, "nobody is old"
    assert found["age"]["values"]["young"]["queries"] == 1, "a query without a relevant image is no query"


def test_recognition_apart_by_gender():
    """Hats of men are always recognized, of women one in two; their ages always."""
    scores = torch.where(LABELS == UNKNOWN, 0.5, LABELS.float() * 0.8 + 0.1)
    scores[3, 4] = 0.1
    found = recognition_by_value(scores, LABELS, SCHEMA)["gender"]
    male, female = (found["values"][value] for value in ("male", "female"))
    assert male["images"] == female["images"] == 2
    assert male["groups"] == {"age": 1, "hat": 1} and female["groups"] == {"age": 1, "hat": 0.5}
    assert (male["group_accuracy"], female["group_accuracy"]) == (1, 0.75)
    assert male["interval"] == (1, 1) and female["interval"] == (0.5, 1)
    assert male["mA"] == 1 and female["mA"] == pytest.approx(0.5), "of hats alone: all women are adult"
    assert found["gap"].pop("groups") == pytest.approx({"age": 0, "hat": 0.5})
    assert found["gap"] == pytest.approx({"mA": 0.5, "group_accuracy": 0.25})


def test_what_is_unknown_is_left_out():
    """The fifth image has no gender and no hat: by age, only its own age's other groups are judged."""
    scores = torch.where(LABELS == UNKNOWN, 0.9, LABELS.float() * 0.8 + 0.1)
    found = recognition_by_value(scores, LABELS, SCHEMA)["age"]["values"]
    assert found["young"]["images"] == 2
    assert found["young"]["groups"] == {"gender": 1, "hat": 1} and found["young"]["group_accuracy"] == 1
