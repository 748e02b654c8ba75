"""New attribute vectors: SAL's two samplers, and the plausible combinations, against loops and the real annotations."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.io import loadmat

from descry.trainer.combinations import PlausibleCombinations, UnseenCombinations, choice_sets
from descry.trainer.schema import UNKNOWN, AttributeGroup, AttributeSchema

ANNOTATIONS = Path(__file__).parents[2] / "shared" / "data" / "annotations"
MARKET, PETA = ANNOTATIONS / "market_attribute.mat", ANNOTATIONS / "PETA.mat"
SCHEMA = AttributeSchema(
    "combinations",
    (
        AttributeGroup("hat", ("no", "yes"), "binary", "head"),
        AttributeGroup("top", ("red", "blue", "green"), "choice", "upper"),
        AttributeGroup("bag", ("backpack", "handbag"), "multi", "carrying"),
    ),
)


def random_rows(seed, count=400):
    """Labels with a rare hat, a top that one in five lacks, and a green top that nobody wears."""
    generator = np.random.default_rng(seed)
    tops = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.uint8)
    hats, bags = generator.random((count, 1)) < 0.1, generator.random((count, 2)) < (0.5, 0.3)
    return np.hstack([hats, tops[generator.choice(3, count, p=(0.2, 0.6, 0.2))], bags]).astype(np.uint8)


def generator_of(seed):
    return torch.Generator().manual_seed(seed)


def test_paper_form_follows_the_training_frequencies():
    rows = random_rows(0)
    rows[:50, 0] = UNKNOWN
    rows[50:90, 1:4] = UNKNOWN
    drawn = UnseenCombinations(rows, SCHEMA).draw(40_000, generator_of(1))
    assert drawn.dtype == torch.uint8 and drawn.shape == (40_000, 6) and drawn.max() == 1
    expected = [[label for label in column if label != UNKNOWN] for column in rows.T.tolist()]
    for element, known in enumerate(expected):
        assert drawn[:, element].double().mean().item() == pytest.approx(sum(known) / len(known), abs=0.01)
    assert drawn[:, 1:4].sum(dim=1).max() == 1
    nothing = np.mean([row == [0, 0, 0] for row in rows[:, 1:4].tolist() if UNKNOWN not in row])
    assert (drawn[:, 1:4].sum(dim=1) == 0).double().mean().item() == pytest.approx(nothing, abs=0.01)
    # Drawn on their own, whatever occurs together in training.
    both = (drawn[:, 4] & drawn[:, 5]).double().mean()
    assert both.item() == pytest.approx((drawn[:, 4].double().mean() * drawn[:, 5].double().mean()).item(), abs=0.01)


def test_an_exclusive_set_whose_values_occur_together_is_still_one_trial():
    """Two ones in a row are one value of the set too many: the values share what "none" leaves."""
    rows = np.array([[0, 1, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], np.uint8)
    drawn = UnseenCombinations(rows, SCHEMA).draw(20_000, generator_of(0))[:, 1:4].double()
    assert drawn.mean(dim=0).tolist() == pytest.approx([0.75 * 0.75, 0.75 * 0.25, 0], abs=0.01)
    assert drawn.sum(dim=1).max() == 1


def test_released_form_has_one_value_a_set_and_a_fixed_number_of_ones():
    rows = random_rows(2)
    drawn = UnseenCombinations(rows, SCHEMA, form="released", subtract=-0.5).draw(40_000, generator_of(3))
    assert (drawn[:, 1:4].sum(dim=1) == 1).all()
    assert int(rows.sum(axis=1).mean() + 0.5) == 2 and (drawn[:, [0, 4, 5]].sum(dim=1) == 2).all()
    weights = rows.mean(axis=0)[[0, 4, 5]]
    expected = np.zeros(3)
    for first, second in itertools.permutations(range(3), 2):
        chance = weights[first] / weights.sum() * weights[second] / (weights.sum() - weights[first])
        expected[[first, second]] += chance
    assert drawn[:, [0, 4, 5]].double().mean(dim=0).tolist() == pytest.approx(expected, abs=0.01)
    tops = rows[:, 1:4].mean(axis=0)
    assert drawn[:, 1:4].double().mean(dim=0).tolist() == pytest.approx(tops / tops.sum(), abs=0.01)


@pytest.mark.parametrize("form", ["paper", "released"])
def test_draws_are_a_function_of_the_generator_and_may_be_kept_unseen(form):
    rows = random_rows(4, count=12)
    sampler = UnseenCombinations(rows, SCHEMA, form=form)
    drawn = sampler.draw(200, generator_of(5))
    assert torch.equal(drawn, sampler.draw(200, generator_of(5)))
    assert not torch.equal(drawn, sampler.draw(200, generator_of(6)))
    assert sampler.draw(0, generator_of(5)).shape == (0, 6)
    seen = {tuple(row) for row in rows.tolist()}
    assert any(tuple(row) in seen for row in drawn.tolist())
    unseen = UnseenCombinations(rows, SCHEMA, form=form, reject_seen=True).draw(200, generator_of(5))
    assert unseen.shape == (200, 6) and not any(tuple(row) in seen for row in unseen.tolist())


def test_what_cannot_be_drawn_is_refused():
    rows = random_rows(7)
    with pytest.raises(ValueError, match="form 'code' is not one of paper, released"):
        UnseenCombinations(rows, SCHEMA, form="code")
    for exclusive in ([(0, 1), (1, 2)], [(5, 6)]):
        with pytest.raises(ValueError, match="element [16] is in two sets, or not one of 0..5"):
            UnseenCombinations(rows, SCHEMA, exclusive=exclusive)
    for subtract in (3, -4):
        with pytest.raises(ValueError, match="is no number of ones for 3 elements: choose another `subtract`"):
            UnseenCombinations(rows, SCHEMA, form="released", subtract=subtract)
    tops = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    everything = [[hat, *top, *bags] for hat, top, *bags in itertools.product((0, 1), tops, (0, 1), (0, 1))]
    with pytest.raises(ValueError, match="after 100 tries 9 of 9 vectors are training categories still"):
        UnseenCombinations(np.array(everything, np.uint8), SCHEMA, reject_seen=True).draw(9, generator_of(0))
    rows[:, 1] = UNKNOWN
    with pytest.raises(ValueError, match="attribute column 1 is unknown"):
        UnseenCombinations(rows, SCHEMA)
    rows[:, 1] = np.where(np.arange(len(rows)) % 2, 0, UNKNOWN)
    rows[:, 2] = np.where(np.arange(len(rows)) % 2, UNKNOWN, 0)
    with pytest.raises(ValueError, match="no row knows all 3 elements of an exclusive set"):
        UnseenCombinations(rows, SCHEMA)


@pytest.mark.skipif(not MARKET.is_file(), reason="the Market-1501 annotation is not here")
def test_sal_on_market_draws_four_of_nine():
    train = loadmat(str(MARKET))["market_attribute"][0, 0]["train"][0, 0]
    column = {name: train[name].ravel() for name in train.dtype.names if name != "image_index"}
    binary = ("backpack", "bag", "handbag", "clothes", "down", "up", "hair", "hat", "gender")
    upper = tuple(f"up{color}" for color in "black white red purple yellow gray blue green".split())
    lower = tuple(f"down{color}" for color in "black white pink purple yellow gray blue green brown".split())
    ages = np.stack([column["age"] == age for age in (1, 2, 3, 4)], axis=1)
    rows = np.hstack([ages, np.stack([column[name] - 1 for name in (*binary, *upper, *lower)], axis=1)]).astype(
        np.uint8
    )
    groups = [AttributeGroup("age", ("young", "teenager", "adult", "old"), "choice", "identity")]
    groups += [AttributeGroup(name, ("no", "yes"), "binary", "identity") for name in binary]
    groups += [AttributeGroup("upper", upper, "choice", "upper"), AttributeGroup("lower", lower, "choice", "lower")]
    schema = AttributeSchema("market", tuple(groups))
    assert choice_sets(schema) == (tuple(range(4)), tuple(range(13, 21)), tuple(range(21, 30)))
    assert rows.shape == (751, 30) and rows.sum(axis=1).mean() == pytest.approx(6.67, abs=0.005)
    released = UnseenCombinations(rows, schema, form="released", subtract=2)
    drawn = released.draw(128, generator_of(1))
    assert (released.ones, len(released.others)) == (4, 9)
    assert (drawn[:, 4:13].sum(dim=1) == 4).all() and (drawn.sum(dim=1) == 7).all()
    paper = UnseenCombinations(rows, schema)
    assert [round(share * 751) for share in paper.none] == [0, 78, 30]


@pytest.mark.skipif(not PETA.is_file(), reason="the PETA annotation is not here")
def test_sal_on_peta_draws_ten_of_fifty_seven():
    """SAL's split: categories with two images or more, in first-seen order, 1 890 of them drawn with seed 1."""
    attributes = loadmat(str(PETA))["peta"][0, 0]["data"][:, 4:].astype(np.uint8)
    _, first, category, counts = np.unique(
        attributes, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first)
    order = order[counts[order] > 1]
    drawn = np.random.RandomState(1).choice(len(order), 1890, replace=False)
    rows = attributes[np.isin(category.ravel(), order[drawn])]
    assert rows.shape == (11_886, 105) and rows.sum(axis=1).mean() == pytest.approx(15.07, abs=0.005)
    schema = AttributeSchema("peta", (AttributeGroup("all", tuple(map(str, range(105))), "multi", "identity"),))
    exclusive = [range(0, 4), range(35, 46), range(46, 57), range(57, 68), range(68, 79)]
    released = UnseenCombinations(rows, schema, form="released", exclusive=exclusive, subtract=5)
    assert (released.ones, len(released.others)) == (10, 57)
    vectors = released.draw(128, generator_of(1))
    assert (vectors.sum(dim=1) == 15).all()
    assert all((vectors[:, list(members)].sum(dim=1) == 1).all() for members in exclusive)
    plausible = PlausibleCombinations(rows, schema)
    assert plausible.is_plausible(torch.from_numpy(rows)).all()


@st.composite
def schemas(draw):
    kinds = draw(st.lists(st.sampled_from(("binary", "choice", "multi")), min_size=1, max_size=5))
    groups = []
    for position, kind in enumerate(kinds):
        size = 2 if kind == "binary" else draw(st.integers(1, 3))
        groups.append(AttributeGroup(f"g{position}", tuple(f"v{value}" for value in range(size)), kind, "identity"))
    return AttributeSchema("drawn", tuple(groups))


def draw_rows(schema, count, seed):
    """Legal rows; values are skewed, so that some never meet."""
    generator = np.random.default_rng(seed)
    rows = np.zeros((count, schema.size), np.uint8)
    for group, where in schema:
        if group.kind == "choice":
            value = np.minimum(generator.geometric(0.5, count) - 1, group.size)
            rows[:, where] = np.eye(group.size + 1, dtype=np.uint8)[value][:, : group.size]
        else:
            rows[:, where] = generator.random((count, group.size)) < 0.3
    return rows


def patterns_of(schema, row):
    return [(position, tuple(row[where])) for position, (_, where) in enumerate(schema)]


def plausible_by_hand(schema, categories, rows):
    together = set()
    for category in categories.tolist():
        together |= set(itertools.product(patterns_of(schema, category), repeat=2))
    return [set(itertools.product(patterns_of(schema, row), repeat=2)) <= together for row in rows.tolist()]


@settings(deadline=None, max_examples=60)
@given(schema=schemas(), count=st.integers(1, 25), seed=st.integers(0, 99))
def test_plausibility_equals_the_loop(schema, count, seed):
    categories, rows = draw_rows(schema, count, seed), draw_rows(schema, 60, seed + 100)
    rows[::9, 0] = UNKNOWN
    combinations = PlausibleCombinations(categories, schema)
    expected = plausible_by_hand(schema, categories, rows)
    assert combinations.is_plausible(torch.from_numpy(rows)).tolist() == expected
    assert not any(expected[::9])
    assert combinations.is_plausible(torch.from_numpy(categories)).all()


@settings(deadline=None, max_examples=20)
@given(schema=schemas(), rows=st.integers(1, 25), count=st.integers(0, 40), seed=st.integers(0, 99))
def test_generated_rows_are_legal_plausible_unseen_and_distinct(schema, rows, count, seed):
    categories = draw_rows(schema, rows, seed)
    combinations = PlausibleCombinations(categories, schema)
    generated = combinations.generate(count, seed)
    assert generated.dtype == torch.uint8 and generated.shape[1] == schema.size and len(generated) <= count
    assert torch.equal(generated, PlausibleCombinations(categories, schema).generate(count, seed))
    listed = [tuple(row) for row in generated.tolist()]
    assert len(set(listed)) == len(listed) and not set(listed) & {tuple(row) for row in categories.tolist()}
    assert all(plausible_by_hand(schema, categories, generated.numpy()))
    for group, where in schema:
        if group.kind == "choice":
            assert (generated[:, where].sum(dim=1) <= 1).all()


@settings(deadline=None, max_examples=15)
@given(schema=schemas(), rows=st.integers(2, 12), seed=st.integers(0, 99))
def test_all_plausible_combinations_of_a_few_groups_are_found(schema, rows, seed):
    """Up to four groups change at once, so that nothing is out of reach; fewer than asked for come back."""
    assume(len(schema.groups) <= 4)
    categories = draw_rows(schema, rows, seed)
    choices = [np.unique(categories[:, where], axis=0).tolist() for _, where in schema]
    every = np.array([sum(parts, []) for parts in itertools.product(*choices)], np.uint8)
    plausible = {
        tuple(row)
        for row, fits in zip(every.tolist(), plausible_by_hand(schema, categories, every), strict=True)
        if fits
    }
    expected = plausible - {tuple(row) for row in categories.tolist()}
    generated = PlausibleCombinations(categories, schema).generate(len(expected) + 1, 0)
    assert {tuple(row) for row in generated.tolist()} == expected


def test_two_thousand_combinations_at_petas_size():
    """1 890 categories of 17 groups, about 200 patterns."""
    values = (6, 12, 3, 3, 12, 12, 12, 12, 5, 5, 2, 5, 12, 12, 11, 12, 4)
    schema = AttributeSchema(
        "large",
        tuple(
            AttributeGroup(f"g{position}", tuple(map(str, range(size))), "choice", "identity")
            for position, size in enumerate(values)
        ),
    )
    categories = np.unique(draw_rows(schema, 1890, 0), axis=0)
    combinations = PlausibleCombinations(categories, schema)
    first, second = combinations.generate(2000, 0), combinations.generate(2000, 1)
    assert len(first) == len(second) == 2000 and not torch.equal(first, second)
    assert combinations.is_plausible(first).all()
    assert torch.equal(combinations.generate(100, 0), first[:100])
