"""The attribute schema: which attributes exist, in which order, and what a value means.

An attribute vector has one element per binary group and one per value of every other group, in the order of the groups.
In a label matrix (uint8) an element is 0, 1 or `UNKNOWN`; unknown is never zero.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

UNKNOWN = 255
NONE = "none"
KINDS = ("binary", "choice", "multi")
PARTS = ("head", "upper", "lower", "identity", "carrying")


class SchemaError(ValueError):
    """A schema, or a label under a schema, is wrong; the message names the group, the value and the valid ones."""


@dataclass(frozen=True)
class AttributeGroup:
    """Attributes that belong together, e.g. the colour of the top.

    Attributes:
        name: unique in its schema.
        values: `binary`: the names of 0 and of 1; `choice`, `multi`: one name an element.
        kind: `binary` (one element), `choice` (at most one element is 1) or `multi` (any subset).
        part: the body part that shows it, one of `PARTS`.
    """

    name: str
    values: tuple[str, ...]
    kind: str
    part: str

    def __post_init__(self) -> None:
        """Refuse a group that no vector could encode."""
        if self.kind not in KINDS:
            raise SchemaError(f"group {self.name!r}: kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.part not in PARTS:
            raise SchemaError(f"group {self.name!r}: part {self.part!r} is not one of {', '.join(PARTS)}")
        if self.kind == "binary" and len(self.values) != 2:
            raise SchemaError(f"group {self.name!r}: a binary group names two values, not {list(self.values)}")
        if self.kind != "binary" and NONE in self.values:
            raise SchemaError(f"group {self.name!r}: {NONE!r} is understood already, as no element set; remove it")
        if not self.values or len(set(self.values)) != len(self.values):
            raise SchemaError(f"group {self.name!r}: values must be distinct and at least one, not {list(self.values)}")

    @property
    def size(self) -> int:
        """Number of elements in the attribute vector."""
        return 1 if self.kind == "binary" else len(self.values)

    @property
    def elements(self) -> tuple[str, ...]:
        """Names of the elements as `group=value`."""
        shown = self.values[1:] if self.kind == "binary" else self.values
        return tuple(f"{self.name}={value}" for value in shown)

    def encode(self, values: Sequence[str]) -> np.ndarray:
        """Turn value names into elements, uint8 [size]; empty means unknown, `none` known to have none.

        Raises:
            SchemaError: a value is not of this group, or a group that holds one value got several.
        """
        if not values:
            return np.full(self.size, UNKNOWN, np.uint8)
        if self.kind != "binary" and tuple(values) == (NONE,):
            return np.zeros(self.size, np.uint8)
        for value in values:
            if value not in self.values:
                none = "" if self.kind == "binary" else f" or {NONE}"
                raise SchemaError(f"{self.name}: {value!r} is not one of {', '.join(self.values)}{none}")
        if self.kind != "multi" and len(values) > 1:
            raise SchemaError(f"{self.name}: holds one value, got {', '.join(values)}")
        if self.kind == "binary":
            return np.array([self.values.index(values[0])], np.uint8)
        return np.array([value in values for value in self.values], np.uint8)

    def decode(self, elements: np.ndarray) -> tuple[str, ...]:
        """Value names of `elements` uint8 [size]; empty when unknown, `none` when known to have none."""
        if (elements == UNKNOWN).any():
            return ()
        if self.kind == "binary":
            return (self.values[int(elements[0])],)
        return tuple(value for value, present in zip(self.values, elements, strict=True) if present) or (NONE,)


@dataclass(frozen=True)
class AttributeSchema:
    """An ordered list of groups; fixes the order and the length N of the attribute vector."""

    name: str
    groups: tuple[AttributeGroup, ...]

    def __post_init__(self) -> None:
        """Refuse an empty schema and a repeated group name."""
        names = [group.name for group in self.groups]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if not names or repeated:
            raise SchemaError(
                f"schema {self.name!r}: group names must be distinct and at least one; repeated: {repeated}"
            )

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each group's elements lie in the attribute vector."""
        ends = np.cumsum([group.size for group in self.groups]).tolist()
        return {group.name: slice(end - group.size, end) for group, end in zip(self.groups, ends, strict=True)}

    @cached_property
    def part_columns(self) -> dict[str, np.ndarray]:
        """Where the attributes of each body part lie in the attribute vector, int64; parts without any are left out."""
        wheres = {part: [np.r_[where] for group, where in self if group.part == part] for part in PARTS}
        return {part: np.concatenate(columns) for part, columns in wheres.items() if columns}

    @property
    def size(self) -> int:
        """N, the length of the attribute vector."""
        return sum(group.size for group in self.groups)

    @property
    def elements(self) -> tuple[str, ...]:
        """Names of the N elements as `group=value`."""
        return tuple(element for group in self.groups for element in group.elements)

    def __iter__(self) -> Iterator[tuple[AttributeGroup, slice]]:
        """Yield each group with its slice of the vector."""
        return ((group, self.slices[group.name]) for group in self.groups)

    def encode(self, labels: Mapping[str, str | Sequence[str] | None]) -> np.ndarray:
        """Turn `{group: value or values}` into a label row, uint8 [N]; a missing group or None is unknown.

        Raises:
            SchemaError: an unknown group or value; the message lists the valid ones.
        """
        for name in labels:
            if name not in self.slices:
                raise SchemaError(f"{name!r} is not an attribute of {self.name}; valid: {', '.join(self.slices)}")
        row = np.full(self.size, UNKNOWN, np.uint8)
        for group, where in self:
            given = labels.get(group.name)
            row[where] = group.encode([given] if isinstance(given, str) else list(given or ()))
        return row

    def decode(self, row: np.ndarray) -> dict[str, tuple[str, ...]]:
        """Value names per group of a label row uint8 [N]; see `AttributeGroup.decode`."""
        return {group.name: group.decode(row[where]) for group, where in self}

    def to_json(self) -> str:
        """The schema as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "schema") -> "AttributeSchema":
        """Read `to_json`'s text; `source` names the file in errors.

        Raises:
            SchemaError: not JSON, a missing or superfluous key, or an invalid group.
        """
        try:
            content = json.loads(text)
            groups = tuple(AttributeGroup(**{**group, "values": tuple(group["values"])}) for group in content["groups"])
            return cls(name=content["name"], groups=groups)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise SchemaError(f"{source} is not an attribute schema: {error!r}") from error
        except SchemaError as error:
            raise SchemaError(f"{source}: {error}") from error

    @classmethod
    def load(cls, path: Path) -> "AttributeSchema":
        """Read a `schema.json`."""
        return cls.from_json(path.read_text(encoding="utf-8"), source=str(path))
