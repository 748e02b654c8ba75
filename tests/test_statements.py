"""What may be said of an attribute, what it means for the elements, and how a photo agrees."""

import itertools

import numpy as np
import pytest
from fake_server import SCHEMA
from hypothesis import given, settings
from hypothesis import strategies as st

from descry.client import AnyOf, InvalidRequest, Not, Schema, Stated, parse_statements

GROUPS = Schema.from_json(SCHEMA)
seeds = st.integers(0, 2**32 - 1)


def all_values(group) -> list[tuple[str, ...]]:
    """Every combination of values that a photo can show."""
    if group.kind != "multi":
        return [(value,) for value in group.choices]
    subsets = (itertools.combinations(group.values, size) for size in range(len(group.values) + 1))
    return [subset or ("none",) for subset in itertools.chain.from_iterable(subsets)]


@st.composite
def said(draw):
    """A group, a statement about it, and what it accepts."""
    group = draw(st.sampled_from(GROUPS.groups))
    values = all_values(group)
    if draw(st.booleans()):
        accepted = draw(st.lists(st.sampled_from(values), min_size=1, unique=True))
        return group, AnyOf(*("+".join(value) for value in accepted)), accepted
    most = len(group.values) - (group.kind == "binary")
    denied = draw(st.lists(st.sampled_from(group.values), min_size=1, max_size=most, unique=True))
    return group, Not(*denied), [value for value in values if not set(value) & set(denied)]


@settings(max_examples=200, deadline=None)
@given(said())
def test_an_element_is_known_where_all_that_is_acceptable_agrees(case):
    group, statement, accepted = case
    encoded = np.stack([group.encode(values) for values in accepted])
    agreed = (encoded == encoded[0]).all(axis=0)
    claim = group.parse(statement)
    if claim is None:
        assert not agreed.any()
        return
    attributes, known = group.elements(claim)
    np.testing.assert_array_equal(known, agreed)
    np.testing.assert_array_equal(attributes, encoded[0] * agreed)
    assert {values for values in all_values(group) if claim.accepts(values)} == set(accepted)


@settings(max_examples=200, deadline=None)
@given(said(), seeds)
def test_the_probability_of_a_statement_is_that_of_what_it_accepts(case, seed):
    group, statement, accepted = case
    scores = np.random.default_rng(seed).random(group.size).astype(np.float32)
    if group.kind == "choice":
        scores /= np.float32(max(1, scores.sum()) + 1e-6)
    claim = group.parse(statement)
    if claim is not None:
        expected = sum(group.probability(values, scores) for values in accepted)
        assert group.claimed(claim, scores) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("group", "statement", "attributes", "known", "text"),
    [
        ("upper_color", AnyOf("red", "blue"), [0, 0, 0], [0, 1, 0], "red|blue"),
        ("upper_color", AnyOf("red", "red"), [1, 0, 0], [1, 1, 1], "red|red"),
        ("upper_color", AnyOf("red", "none"), [0, 0, 0], [0, 1, 1], "red|none"),
        ("upper_color", Not("red"), [0, 0, 0], [1, 0, 0], "not red"),
        ("upper_color", Not("red", "green", "blue"), [0, 0, 0], [1, 1, 1], "not red|green|blue"),
        ("gender", Not("male"), [1], [1], "not male"),
        ("gender", Stated("male", 0.7), [0], [0.7], "male@0.7"),
        ("carrying", Not("handbag"), [0, 0], [0, 1], "not handbag"),
        ("carrying", AnyOf("backpack", ["backpack", "handbag"]), [1, 0], [1, 0], "backpack|backpack+handbag"),
        ("carrying", Stated(["backpack"], 0.5), [1, 0], [0.5, 0.5], "backpack@0.5"),
        ("upper_color", Stated(Not("red"), 0.25), [0, 0, 0], [0.25, 0, 0], "not red@0.25"),
        ("age", AnyOf("adult", "60+"), [0, 0], [0, 0], ""),
        ("gender", AnyOf("male", "female"), [0], [0], ""),
        ("upper_color", Stated("red", 0), [0, 0, 0], [0, 0, 0], ""),
        ("upper_color", Stated("unknown", 0.5), [0, 0, 0], [0, 0, 0], ""),
    ],
)
def test_statements_as_elements(group, statement, attributes, known, text):
    where = GROUPS.slices[group]
    encoded = GROUPS.encode({group: statement})
    np.testing.assert_allclose(encoded[0][where], attributes)
    np.testing.assert_allclose(encoded[1][where], known)
    assert encoded[0].dtype == encoded[1].dtype == np.float32
    claims = GROUPS.parse({group: statement})
    assert [claim.text for claim in claims.values()] == ([text] if text else [])


@pytest.mark.parametrize(
    ("group", "statement", "message"),
    [
        ("upper_color", AnyOf("red", "grean"), "upper_color: 'grean' is not known (did you mean 'green'?); valid: red"),
        ("upper_color", AnyOf(), "upper_color: name at least one value of red, green, blue, none"),
        ("carrying", AnyOf("backpack", []), "carrying: name at least one value"),
        ("upper_color", AnyOf("red", "unknown"), "'unknown' is not known"),
        ("gender", Not(), "gender: name at least one value of male, female"),
        ("upper_color", Not(), "name at least one value"),
        ("upper_color", Not("none"), "upper_color: what it is not 'none' is not known; valid: red, green, blue"),
        ("carrying", Not("backpack+handbag"), "valid: backpack, handbag"),
        ("gender", Not("male", "female"), "gender: male and female cannot both be ruled out"),
        ("gender", 1, "gender: 1 is no statement; say a value of male, female"),
        ("gender", Stated(Stated("male", 1), 1), "is no statement"),
        ("gender", Stated("male", 1.5), "gender: a confidence is a number from 0 to 1, not 1.5"),
        ("gender", Stated("male", float("nan")), "not nan"),
        (
            "upper_color",
            ["red", "blue"],
            "upper_color takes one value, not red+blue; where it may be either, say red|blue",
        ),
    ],
)
def test_a_wrong_statement_is_refused(group, statement, message):
    with pytest.raises(InvalidRequest) as refusal:
        GROUPS.encode({group: statement})
    assert message in str(refusal.value)


def test_words_of_a_command_line():
    words = ["a=red|pink", "b!=red", "c=no@0.7", "d!=red|blue@.5", "e=bag+hat", "f=x@home", "g=60+"]
    assert parse_statements(words) == {
        "a": AnyOf("red", "pink"),
        "b": Not("red"),
        "c": Stated("no", 0.7),
        "d": Stated(Not("red", "blue"), 0.5),
        "e": "bag+hat",
        "f": "x@home",
        "g": "60+",
    }
    for wrong in ("!=x", "a!=", "a!"):
        with pytest.raises(InvalidRequest, match="attribute=value"):
            parse_statements([wrong])


def test_several_witnesses_are_explained_as_one():
    scores = np.array([0.9, 0.7, 0.2, 0.1, 0.1, 0.1, 0.5, 0.5], np.float32)
    claims = [
        GROUPS.parse({"gender": "female", "upper_color": "red"}),
        GROUPS.parse({"upper_color": Stated("green", 0.5)}),
    ]
    gender, color = GROUPS.explain(claims, scores, np.arange(8, dtype=np.float32), scores)
    assert (gender.stated, gender.agrees) == ("female", True)
    assert (color.stated, color.predicted, color.agrees) == ("red / green@0.5", "red", True)
    assert color.probability == pytest.approx((0.7 + 0.5 * 0.2) / 1.5) and color.term == 1 + 2 + 3
