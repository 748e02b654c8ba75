"""Market-1501 (Zheng et al., ICCV 2015) with the 27 attributes of each person (Lin et al., Pattern Recognition 2019).

Schema `market1501` has the 30 elements that the papers name: the age (four), the bag (three), eight upper and nine
lower colours and six binary attributes. `market1501_onehot` is the vector of ASMR's released code, 39 elements: every
group one-hot, with an element for "none".
"""

from functools import partial

from descry.trainer.datasets.reid import AttributeSet, Benchmark, Element, load_benchmark
from descry.trainer.schema import AttributeGroup

AGES = ("young", "teenager", "adult", "old")
BAGS = ("backpack", "bag", "handbag")
LOWER_COLORS = ("black", "blue", "brown", "gray", "green", "pink", "purple", "white", "yellow")
UPPER_COLORS = ("black", "blue", "green", "gray", "purple", "red", "white", "yellow")
# Field of the annotation, group, the names of its values 1 and 2, part (Cerberus, Table 1).
BINARIES = (
    ("clothes", "lower_style", ("dress", "pants"), "lower"),
    ("down", "lower_length", ("long", "short"), "lower"),
    ("up", "sleeves", ("long", "short"), "upper"),
    ("hair", "hair_length", ("short", "long"), "head"),
    ("hat", "hat", ("no", "yes"), "head"),
    ("gender", "gender", ("male", "female"), "identity"),
)


def _is_2(fields: list[str]) -> list[Element]:
    return [(field, 2) for field in fields]


AGE = (AttributeGroup("age", AGES, "choice", "identity"), [("age", number) for number in (1, 2, 3, 4)])
BAG_FIELDS = _is_2(list(BAGS))
LOWER_FIELDS = _is_2([f"down{color}" for color in LOWER_COLORS])
UPPER_FIELDS = _is_2([f"up{color}" for color in UPPER_COLORS])

PAPER = AttributeSet.of(
    "market1501",
    AGE,
    (AttributeGroup("bag", BAGS, "choice", "carrying"), BAG_FIELDS),
    (AttributeGroup("lower_color", LOWER_COLORS, "choice", "lower"), LOWER_FIELDS),
    (AttributeGroup("upper_color", UPPER_COLORS, "choice", "upper"), UPPER_FIELDS),
    *((AttributeGroup(group, values, "binary", part), [(field, 2)]) for field, group, values, part in BINARIES),
)
ONE_HOT = AttributeSet.of(
    "market1501_onehot",
    AGE,
    (AttributeGroup("bag", ("no_bag", *BAGS), "choice", "carrying"), [None, *BAG_FIELDS]),
    (AttributeGroup("lower_color", ("no_color", *LOWER_COLORS), "choice", "lower"), [None, *LOWER_FIELDS]),
    (AttributeGroup("upper_color", ("no_color", *UPPER_COLORS), "choice", "upper"), [None, *UPPER_FIELDS]),
    *(
        (AttributeGroup(group, values, "choice", part), [(field, 1), (field, 2)])
        for field, group, values, part in BINARIES
    ),
)

NO_YES_FIELDS = [field for field, _ in BAG_FIELDS + LOWER_FIELDS + UPPER_FIELDS] + [binary[0] for binary in BINARIES]
BENCHMARK = Benchmark(
    name="market1501",
    annotation="market_attribute",
    attribute_sets={"market1501": PAPER, "market1501_onehot": ONE_HOT},
    legal={"age": (1, 2, 3, 4), **{field: (1, 2) for field in NO_YES_FIELDS}},
    images={"bounding_box_train": 12936, "bounding_box_test": 19732, "query": 3368},
)
PUBLISHED: dict[tuple[str, str], dict[str, int | str]] = {
    ("", "market1501"): {
        "train images": 12936,
        "test images": 16483,
        "distractor images": 2798,
        "re-ID queries": 3368,
        "train persons": 751,
        "test persons": 750,
        "train categories": 508,
        "test categories": 484,
        "test categories unseen in training": 315,
        "train SIDs": 66,
        "test SIDs": 61,
        "test SIDs unseen in training": 2,
    }
}

load = partial(load_benchmark, BENCHMARK)
