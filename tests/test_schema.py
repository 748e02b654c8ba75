import numpy as np
import pytest

from descry.trainer.schema import UNKNOWN, AttributeGroup, AttributeSchema, SchemaError

SCHEMA = AttributeSchema(
    "street",
    (
        AttributeGroup("gender", ("male", "female"), "binary", "identity"),
        AttributeGroup("top", ("red", "blue", "green"), "choice", "upper"),
        AttributeGroup("bag", ("backpack", "handbag"), "multi", "carrying"),
    ),
)


def test_elements_follow_the_order_of_the_groups():
    assert SCHEMA.size == 6
    assert SCHEMA.elements == (
        "gender=female", "top=red", "top=blue", "top=green", "bag=backpack", "bag=handbag",
    )  # fmt: skip
    assert SCHEMA.slices == {"gender": slice(0, 1), "top": slice(1, 4), "bag": slice(4, 6)}


@pytest.mark.parametrize(
    ("labels", "row"),
    [
        ({}, [UNKNOWN] * 6),
        ({"gender": "female", "top": None}, [1] + [UNKNOWN] * 5),
        ({"gender": "male", "top": "blue", "bag": ["handbag"]}, [0, 0, 1, 0, 0, 1]),
        ({"top": "none", "bag": "none"}, [UNKNOWN, 0, 0, 0, 0, 0]),
        ({"bag": ["backpack", "handbag"]}, [UNKNOWN] * 4 + [1, 1]),
    ],
)
def test_encode(labels, row):
    assert SCHEMA.encode(labels).tolist() == row


def test_decode_is_the_inverse_and_keeps_unknown_apart_from_none():
    labels = {"gender": ("female",), "top": ("none",), "bag": ("backpack", "handbag")}
    assert SCHEMA.decode(SCHEMA.encode(labels)) == labels
    assert SCHEMA.decode(SCHEMA.encode({"top": "red"})) == {"gender": (), "top": ("red",), "bag": ()}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"hat": "yes"}, "'hat' is not an attribute of street; valid: gender, top, bag"),
        ({"top": "pink"}, "top: 'pink' is not one of red, blue, green or none"),
        ({"top": ["red", "blue"]}, "top: holds one value, got red, blue"),
        ({"gender": "none"}, "gender: 'none' is not one of male, female"),
    ],
)
def test_wrong_labels_name_the_valid_ones(labels, message):
    with pytest.raises(SchemaError, match=f"^{message}$"):
        SCHEMA.encode(labels)


def test_json_round_trip(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(SCHEMA.to_json())
    assert AttributeSchema.load(path) == SCHEMA


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not an attribute schema"),
        ('{"name": "x"}', "groups"),
        ('{"name": "x", "groups": []}', "at least one"),
        (
            '{"name": "x", "groups": [{"name": "a", "values": ["1"], "kind": "binary", "part": "head"}]}',
            "names two values",
        ),
        ('{"name": "x", "groups": [{"name": "a", "values": ["1"], "kind": "many", "part": "head"}]}', "kind 'many'"),
        ('{"name": "x", "groups": [{"name": "a", "values": ["1"], "kind": "multi", "part": "tail"}]}', "part 'tail'"),
        (
            '{"name": "x", "groups": [{"name": "a", "values": ["none"], "kind": "multi", "part": "head"}]}',
            "understood already",
        ),
    ],
)
def test_a_wrong_schema_file_is_named(tmp_path, text, message):
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(SchemaError, match=message) as caught:
        AttributeSchema.load(path)
    assert str(path) in str(caught.value)


def test_unknown_is_no_label_value():
    assert UNKNOWN not in (0, 1)
    assert SCHEMA.encode({}).dtype == np.uint8
