"""A description in plain English."""

from collections.abc import Sequence

from descry.client import Group, Schema
from descry.client.groups import Claim
from descry.client.schema import Claims

NONE = "none"
PLACES = {"upper": "top", "lower": "bottoms"}  # what `upper_color` is the colour of
ASPECTS = ("color", "colour", "length", "pattern", "texture")  # `hair_length=long` is long hair
KINDS = ("kind", "type", "style")  # `lower_kind=skirt` is a skirt
YES_NO = {"no", "yes"}
UNCOUNTED = ("hair", "clothing")


def sentence(schema: Schema, claims: Claims) -> str:
    """What is asked for, such as "A person who is female, with long hair, wearing a red top."."""
    said: dict[str, list[str]] = {"identity": [], "head": [], "wearing": [], "carrying": []}
    for group in schema.groups:
        if group.name in claims:
            part = "wearing" if group.part in ("upper", "lower") else group.part
            said.setdefault(part, []).append(_with_article(group, phrase(group, claims[group.name])))
    openings = {"identity": "who is ", "head": "with ", "wearing": "wearing ", "carrying": "carrying "}
    clauses = [openings.get(part, "with ") + enumerate_words(phrases) for part, phrases in said.items() if phrases]
    return f"A person {', '.join(clauses)}." if clauses else "Anybody: nothing is stated yet."


def phrase(group: Group, claim: Claim) -> str:
    """One statement: `red or pink top`, `no hat (70 % sure)`."""
    sure = "" if claim.confidence == 1 else f" ({claim.confidence:.0%} sure)".replace("%", " %")
    if claim.denied:
        return _denied(group, [value for values in claim.alternatives for value in values]) + sure
    together = [_together(group, values) for values in claim.alternatives]
    return enumerate_words(_without_repeated_end(together), "or") + sure


def enumerate_words(words: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def plain(name: str) -> str:
    """A name of the schema as words."""
    return name.replace("_", " ")


def spaced(count: int) -> str:
    """A number with thin spaces between thousands."""
    return f"{count:,}".replace(",", "\u2009")


def value_words(group: Group, values: Sequence[str]) -> str:
    """Values that hold at once, as they are seen: `red top`, `no hat`, `backpack and handbag`."""
    return enumerate_words([_one(group, value) for value in values])


def _with_article(group: Group, text: str) -> str:
    """`a red or pink top`, but `long hair`, `trousers` and `no hat`."""
    thing = text.partition(" (")[0].partition(" that ")[0].removesuffix(" only")
    if group.part == "identity" or thing.startswith(("no ", "some ")) or thing.endswith(("s", *UNCOUNTED)):
        return text
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _together(group: Group, values: tuple[str, ...]) -> str:
    """Values that hold at once; of a multi group these and no others."""
    words = value_words(group, values)
    return f"{words} only" if group.kind == "multi" and NONE not in values else words


def _denied(group: Group, values: list[str]) -> str:
    """What is ruled out: `top that is not red or pink`, `no skirt or dress`; to rule out `none` is to have some."""
    noun, aspect = _noun(group)
    if set(group.values) == YES_NO:
        return noun if values == ["no"] else f"no {noun}"
    named = enumerate_words([plain(value) for value in values if value != NONE] or [""], "or")
    if group.part == "identity":
        return f"not {named}"
    if aspect == "kind" or group.kind == "multi":
        return f"no {named}" if named else f"some {noun}"
    return f"{noun} that is not {named}" if named else noun


def _one(group: Group, value: str) -> str:
    """One value with what it is a value of."""
    noun, aspect = _noun(group)
    if value == NONE:
        return f"no {noun}" if aspect != "kind" else f"no {plain(group.name)}"
    if set(group.values) == YES_NO:
        return noun if value == "yes" else f"no {noun}"
    if group.part == "identity" or aspect == "kind" or group.kind == "multi":
        return plain(value)
    return f"{plain(value)} {noun}"


def _noun(group: Group) -> tuple[str, str]:
    """What a group is about, and which side of it: `hair` and `length`, `top` and `color`, `hat` and nothing."""
    stem, _, end = group.name.lower().rpartition("_")
    aspect = "aspect" if end in ASPECTS else "kind" if end in KINDS else ""
    noun = stem if aspect and stem else group.name.lower()
    return plain(PLACES.get(noun, noun)), aspect


def _without_repeated_end(phrases: list[str]) -> list[str]:
    """`red top` or `pink top` is `red` or `pink top`."""
    ends = {phrase.rpartition(" ")[2] for phrase in phrases}
    if len(ends) > 1 or not all(" " in phrase for phrase in phrases):
        return phrases
    return [*(phrase.rpartition(" ")[0] for phrase in phrases[:-1]), phrases[-1]]
