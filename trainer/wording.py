"""Attribute vectors in words, as titles and captions say them."""

from collections.abc import Collection

import numpy as np

from descry.trainer.schema import NONE, AttributeSchema

ABSENT = (("no",), (NONE,))


def phrase(name: str, values: tuple[str, ...]) -> str:
    """A decoded group in words: `hat`, `no hat`, `hat unknown`, `upper color red + blue`."""
    if not values:
        words = f"{name} unknown"
    elif values in ABSENT:
        words = f"no {name}"
    else:
        words = name if values == ("yes",) else f"{name} {' + '.join(values)}"
    return words.replace("_", " ")


def in_words(schema: AttributeSchema, row: np.ndarray, groups: Collection[str] = ()) -> str:
    """What a label row uint8 [N] has; what it has not, and what is unknown, goes without saying.

    Args:
        schema: meaning of its elements.
        row: 0, 1 and `UNKNOWN`.
        groups: names of those to say; empty = all.
    """
    said = {name: values for name, values in schema.decode(row).items() if name in (groups or schema.slices)}
    present = [phrase(name, values) for name, values in said.items() if values and values not in ABSENT]
    return ", ".join(present) or "none of the attributes"


def differences(schema: AttributeSchema, described: np.ndarray, labels: np.ndarray) -> list[str]:
    """What labels uint8 [N] say in each group in which they are not as described, uint8 [N]: `no hat`, `age adult`."""
    said, shown = schema.decode(described), schema.decode(labels)
    return [phrase(name, values) for name, values in shown.items() if values != said[name]]
