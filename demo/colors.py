"""Which values are colours, and how those look."""

from descry.client import Group

PALETTE = {
    "black": "#1b1b1f",
    "white": "#fafafa",
    "red": "#d32f2f",
    "pink": "#ec7fb0",
    "orange": "#f08a24",
    "yellow": "#f2cf1d",
    "green": "#2e8b47",
    "blue": "#2b63c6",
    "purple": "#7d3fb2",
    "brown": "#7a4a24",
    "beige": "#d9c6a0",
    "gray": "#8b9097",
    "grey": "#8b9097",
    "silver": "#c3c8ce",
    "gold": "#c9a227",
    "blond": "#e3c26b",
    "cyan": "#22b5c4",
    "khaki": "#a79f6a",
}
MIXED = "conic-gradient(#d32f2f, #f2cf1d, #2e8b47, #2b63c6, #7d3fb2, #d32f2f)"
MIXTURES = ("mixture", "mixed", "multicolor", "multi", "colorful", "other")


def is_color(group: Group) -> bool:
    """Whether the values of a group are colours, but for one or two."""
    known = sum(value.lower() in PALETTE for value in group.values)
    return known >= 2 and known >= len(group.values) - 2


def swatch(value: str) -> str | None:
    """CSS of a colour; None where the value is none."""
    return MIXED if value.lower() in MIXTURES else PALETTE.get(value.lower())
