"""What a description may say of an attribute: a value, one of several, none of several, and how sure the witness is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from descry.client.errors import InvalidRequest

UNKNOWN = "unknown"
NONE = "none"

# One text; in an attribute with several values at once also `"bag+hat"` or a list of them.
Value: TypeAlias = str | Sequence[str]


@dataclass(frozen=True, init=False)
class AnyOf:
    """One of these values, whichever: `AnyOf("red", "pink")`."""

    values: tuple[Value, ...]

    def __init__(self, *values: Value) -> None:
        """Name the acceptable values."""
        object.__setattr__(self, "values", values)

    def __str__(self) -> str:
        """As on the command line: `red|pink`."""
        return "|".join(map(_text, self.values))


@dataclass(frozen=True, init=False)
class Not:
    """None of these values: `Not("red")`."""

    values: tuple[str, ...]

    def __init__(self, *values: str) -> None:
        """Name what is ruled out."""
        object.__setattr__(self, "values", values)

    def __str__(self) -> str:
        """In words: `not red|pink`."""
        return "not " + "|".join(self.values)


@dataclass(frozen=True)
class Stated:
    """A statement that the witness is not sure of: `Stated("no", 0.7)`; confidence 1 is certain, 0 is unknown."""

    what: "Value | AnyOf | Not"
    confidence: float

    def __str__(self) -> str:
        """As on the command line: `no@0.7`."""
        return f"{_text(self.what)}@{self.confidence:g}"


Statement: TypeAlias = Value | AnyOf | Not | Stated | None
Statements: TypeAlias = Mapping[str, Statement]


def parse_statements(words: Iterable[str]) -> dict[str, Statement]:
    """Turn words of a command line into statements.

    `gender=female`, `carrying=bag+hat`, `upper_color=red|pink`, `upper_color!=red`, and `hat=no@0.7` with a confidence.

    Raises:
        InvalidRequest: a word of another form, or an attribute stated twice.
    """
    statements: dict[str, Statement] = {}
    for word in words:
        name, equals, said = word.partition("=")
        denied, name = name.endswith("!"), name.removesuffix("!")
        if not (name and equals and said):
            raise InvalidRequest(f"{word!r} is not of the form attribute=value, for example gender=female")
        if name in statements:
            raise InvalidRequest(
                f"{name} is stated twice; join several values with a plus where all hold, {name}=a+b, "
                f"with a bar where any may hold, {name}=a|b"
            )
        statements[name] = _parse(said, denied)
    return statements


def _parse(said: str, denied: bool) -> Statement:
    """What follows `=`; `denied` where it was `!=`."""
    said, confidence = _split_confidence(said)
    values = said.split("|")
    what: Value | AnyOf | Not = Not(*values) if denied else AnyOf(*values) if len(values) > 1 else said
    return what if confidence is None else Stated(what, confidence)


def _split_confidence(said: str) -> tuple[str, float | None]:
    """`no@0.7` in two; a text after `@` that is no number belongs to the value."""
    what, at, number = said.rpartition("@")
    try:
        return (what, float(number)) if at else (said, None)
    except ValueError:
        return said, None


def _text(value: "Value | AnyOf | Not") -> str:
    return "+".join(value) if isinstance(value, (list, tuple)) else str(value)
