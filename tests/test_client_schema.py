"""Descriptions to vectors, and scores back to words."""

import json

import numpy as np
import pytest
from fake_server import SCHEMA, N

from descry.client import (
    InvalidRequest,
    Schema,
    parse_statements,
)


def schema() -> Schema:
    return Schema.from_json(SCHEMA)


def test_encode_marks_a_stated_group_known_in_all_elements():
    attributes, known = schema().encode({"gender": "female", "upper_color": "blue", "carrying": "unknown", "age": None})
    assert attributes.tolist() == [1, 0, 0, 1, 0, 0, 0, 0]
    assert known.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert attributes.dtype == known.dtype == np.float32


@pytest.mark.parametrize(
    ("stated", "elements"),
    [("backpack+handbag", [1, 1]), (["handbag"], [0, 1]), ("none", [0, 0]), ("handbag+backpack", [1, 1])],
)
def test_encode_multi(stated, elements):
    attributes, known = schema().encode({"carrying": stated})
    assert attributes[4:6].tolist() == elements and known[4:6].tolist() == [1, 1]


def test_a_plus_in_a_value_is_part_of_the_value():
    assert schema().encode({"age": "60+"})[0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ({"gendr": "male"}, "did you mean 'gender'"),
        (
            {"upper_color": "grean"},
            "upper_color: 'grean' is not known (did you mean 'green'?); valid: red, green",
        ),
        ({"gender": "none"}, "valid: male, female"),
        ({"upper_color": ["red", "blue"]}, "takes one value"),
        ({"carrying": "none+handbag"}, "takes one value"),
    ],
)
def test_encode_refuses(statements, message):
    with pytest.raises(InvalidRequest) as caught:
        schema().encode(statements)
    assert message in str(caught.value)


def test_encode_agrees_with_the_trainer():
    """The two schemas are written twice on purpose (the client has no trainer); they must not drift apart."""
    trainer = pytest.importorskip("descry.trainer.schema")
    theirs = trainer.AttributeSchema.from_json(json.dumps(SCHEMA))
    statements = {"gender": "female", "carrying": ["handbag"], "age": "none"}
    row = theirs.encode(statements)
    attributes, known = schema().encode(statements)
    assert np.array_equal(known == 1, row != trainer.UNKNOWN)
    assert np.array_equal(attributes[known == 1], row[known == 1])
    assert schema().elements == theirs.elements


def test_parse_statements():
    assert parse_statements(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    for wrong in (["gender"], ["=x"], ["a="], ["a=b", "a=c"]):
        with pytest.raises(InvalidRequest):
            parse_statements(wrong)


def test_prediction_and_agreement():
    scores = np.array([0.2, 0.1, 0.1, 0.2, 0.9, 0.6, 0.3, 0.7], np.float32)
    predicted = {one.group: one for one in schema().predict(scores)}
    assert {name: one.value for name, one in predicted.items()} == {
        "gender": "male",
        "upper_color": "none",
        "carrying": "backpack+handbag",
        "age": "60+",
    }
    assert predicted["gender"].probability == pytest.approx(0.8)
    assert predicted["upper_color"].probability == pytest.approx(0.6)
    assert predicted["carrying"].probability == pytest.approx(0.54)
    terms = np.array([0.64, 0, 0, 0, 0.01, 0.36, 0, 0], np.float32)
    gender, carrying = schema().agreement({"gender": "female", "carrying": "backpack"}, scores, terms)
    assert (gender.stated, gender.predicted, gender.agrees) == ("female", "male", False)
    assert gender.probability == pytest.approx(0.2) and gender.term == pytest.approx(0.64)
    assert not carrying.agrees and carrying.probability == pytest.approx(0.9 * 0.4)
    assert carrying.term == pytest.approx(0.37)


def test_predicted_values_are_the_most_probable_ones():
    generator = np.random.default_rng(0)
    for _ in range(50):
        scores = generator.random(N).astype(np.float32)
        for group, where in ((group, schema().slices[group.name]) for group in schema().groups):
            best = group.predict(scores[where]).probability
            assert all(best >= group.probability((value,), scores[where]) - 1e-6 for value in group.choices)
