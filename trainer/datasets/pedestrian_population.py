"""Who lives in the synthetic set: its attributes, a plausible joint distribution of them, and the splits."""

from collections.abc import Mapping, Sequence

import numpy as np

from descry.trainer.schema import NONE, AttributeGroup, AttributeSchema

SCHEMA = AttributeSchema(
    "synthetic",
    (
        AttributeGroup("gender", ("male", "female"), "binary", "identity"),
        AttributeGroup("age", ("child", "adult", "senior"), "choice", "identity"),
        AttributeGroup("hair_length", ("short", "long"), "binary", "head"),
        AttributeGroup("hair_color", ("black", "brown", "blond", "gray"), "choice", "head"),
        AttributeGroup("hat", ("no", "yes"), "binary", "head"),
        AttributeGroup(
            "upper_color", ("black", "white", "red", "blue", "green", "yellow", "gray", "purple"), "choice", "upper"
        ),
        AttributeGroup("sleeves", ("long", "short"), "binary", "upper"),
        AttributeGroup("upper_pattern", ("plain", "striped", "plaid", "logo"), "choice", "upper"),
        AttributeGroup("lower_kind", ("trousers", "shorts", "skirt"), "choice", "lower"),
        AttributeGroup("lower_color", ("black", "blue", "gray", "brown", "white", "green", "red"), "choice", "lower"),
        AttributeGroup("boots", ("no", "yes"), "binary", "lower"),
        AttributeGroup("bag", ("backpack", "handbag", "shoulder_bag"), "multi", "carrying"),
    ),
)
UPPER_COLORS: dict[str, float] = {
    "black": 20,
    "white": 18,
    "red": 11,
    "blue": 15,
    "green": 9,
    "yellow": 7,
    "gray": 13,
    "purple": 6,
}
LOWER_COLORS: dict[str, float] = {"black": 26, "blue": 28, "gray": 14, "brown": 11, "white": 8, "green": 6, "red": 4}
FEWEST_PERSONS = 10
CATEGORIES_A_PERSON = 0.4
TEST_SHARE, VAL_SHARE, UNSEEN_SHARE = 0.3, 0.1, 0.5


def draw_category(rng: np.random.Generator) -> np.ndarray:
    """Draw the attributes of a person, uint8 [N]: skirts mostly on women, gray hair mostly on seniors, and so on."""

    def pick(weights: Mapping[str, float]) -> str:
        shares = np.array(list(weights.values()))
        return list(weights)[int(rng.choice(len(shares), p=shares / shares.sum()))]

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    female, age = chance(0.5), pick({"child": 0.12, "adult": 0.70, "senior": 0.18})
    long_hair = chance({"child": 0.75, "adult": 0.72, "senior": 0.3}[age] if female else 0.06)
    young_hair: dict[str, float] = {"black": 0.42, "brown": 0.32, "blond": 0.22, "gray": 0.04 if age == "adult" else 0}
    short_sleeves = chance(0.45)
    shorts = (0.34 if short_sleeves else 0.06) * (0.4 if age == "senior" else 1)
    lower = pick({"trousers": 0.62, "shorts": shorts, "skirt": 0.26 if female else 0.004})
    upper_color = pick({**UPPER_COLORS, "purple": 9 if female else 4})
    # Few people wear one colour from head to foot.
    lower_colors = {**LOWER_COLORS, "red": 7 if lower == "skirt" else 3}
    lower_colors |= {upper_color: lower_colors[upper_color] * 0.3} if upper_color in lower_colors else {}
    old_hair = {"gray": 0.78, "brown": 0.1, "black": 0.07, "blond": 0.05}
    return SCHEMA.encode(
        {
            "gender": "female" if female else "male",
            "age": age,
            "hair_length": "long" if long_hair else "short",
            "hair_color": pick(old_hair if age == "senior" else young_hair),
            "hat": "yes" if chance({"child": 0.25, "adult": 0.16, "senior": 0.34}[age]) else "no",
            "upper_color": upper_color,
            "sleeves": "short" if short_sleeves else "long",
            "upper_pattern": pick(
                {"plain": 0.56, "striped": 0.17, "plaid": 0.05 if short_sleeves else 0.17, "logo": 0.14}
            ),
            "lower_kind": lower,
            "lower_color": pick(lower_colors),
            "boots": "yes" if chance({"trousers": 0.15, "shorts": 0.05, "skirt": 0.40}[lower]) else "no",
            "bag": _draw_bags(rng, female, age),
        }
    )


def _draw_bags(rng: np.random.Generator, female: bool, age: str) -> Sequence[str]:
    odds = {
        "backpack": {"child": 0.42, "adult": 0.24, "senior": 0.10}[age],
        "handbag": (0.28 if female else 0.06) * (0.2 if age == "child" else 1),
        "shoulder_bag": 0.18 * (0.3 if age == "child" else 1),
    }
    chosen = [bag for bag, probability in odds.items() if rng.random() < probability]
    return chosen[:2] or [NONE]


def draw_population(persons: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Attributes, uint8 [persons, N], and splits, str [persons], of a dataset.

    Persons share categories (complete attribute vectors): a few frequent ones and many rare ones. Of the test persons
    about half have a category that occurs in `train`; the category of the others occurs nowhere else.

    Raises:
        ValueError: fewer than `FEWEST_PERSONS` persons.
    """
    if persons < FEWEST_PERSONS:
        raise ValueError(f"persons: {persons} is too few for three splits; give at least {FEWEST_PERSONS}")
    rng = np.random.default_rng([seed, 0])
    wanted = max(round(CATEGORIES_A_PERSON * persons), 3)
    categories: dict[bytes, np.ndarray] = {}
    while len(categories) < wanted:
        category = draw_category(rng)
        categories[category.tobytes()] = category
    popularity = 1 / (np.arange(wanted) + 3.0)
    extra = rng.choice(wanted, persons - wanted, p=popularity / popularity.sum())
    owners = rng.permutation(np.concatenate([np.arange(wanted), extra]))
    return np.stack(list(categories.values()))[owners], _split(owners, rng)


def _split(categories: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Split persons, whose categories are int [persons], into `train`, `val` and `test`."""
    tests, validations = round(TEST_SHARE * len(categories)), round(VAL_SHARE * len(categories))
    splits = np.full(len(categories), "train", dtype="<U5")
    unseen = 0
    for category in rng.permutation(np.unique(categories)):
        members = np.flatnonzero(categories == category)
        if unseen + len(members) <= max(round(UNSEEN_SHARE * tests), 1):
            splits[members] = "test"
            unseen += len(members)
    # One person of every other category stays in train, so that the remaining test categories are seen.
    left = np.flatnonzero(splits == "train")
    anchors = left[np.unique(categories[left], return_index=True)[1]]
    free = rng.permutation(np.setdiff1d(left, anchors))
    splits[free[: tests - unseen]] = "test"
    splits[free[tests - unseen : tests - unseen + validations]] = "val"
    return splits
