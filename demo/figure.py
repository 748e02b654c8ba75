"""A standing person, drawn, whose parts show what is stated of them."""

from collections.abc import Iterable, Sequence
from html import escape

from descry.client import Group, Schema
from descry.client.groups import Claim
from descry.client.schema import Claims
from descry.demo.colors import PALETTE, is_color
from descry.demo.sentence import phrase

SKIN = "#d9a98a"
# Body, in a box of 120 x 250. The outline of a part that nothing is said of is dashed.
HAIR = "M42 34 C40 8 80 8 78 34 C72 24 48 24 42 34 Z"
LONG_HAIR = "M40 66 C36 6 84 6 80 66 L72 66 C76 44 74 28 60 26 C46 28 44 44 48 66 Z"
TORSO = "M42 66 C50 60 70 60 78 66 L82 132 L38 132 Z"
LONG_SLEEVES = ("M42 66 L30 76 L24 132 L33 134 L40 96 Z", "M78 66 L90 76 L96 132 L87 134 L80 96 Z")
SHORT_SLEEVES = ("M42 66 L30 76 L27 98 L37 100 L40 90 Z", "M78 66 L90 76 L93 98 L83 100 L80 90 Z")
LEGS = {
    "trousers": "M38 132 L82 132 L80 228 L64 228 L60 150 L56 228 L40 228 Z",
    "shorts": "M38 132 L82 132 L81 176 L63 176 L60 152 L57 176 L39 176 Z",
    "skirt": "M38 132 L82 132 L92 184 L28 184 Z",
}
BARE_LEGS = "M42 150 L57 150 L56 228 L44 228 Z M63 150 L78 150 L76 228 L64 228 Z"
SHOES = "M42 228 H57 V236 H36 C36 231 40 230 42 228 Z M63 228 H78 C80 230 84 231 84 236 H63 Z"
HAT = "M38 26 C44 4 76 4 82 26 L92 28 L92 32 L28 32 L28 28 Z"
BAGS = {
    "backpack": "M24 74 h12 v46 h-12 q-6 0 -6 -8 v-30 q0 -8 6 -8 Z",
    "hand": "M88 136 h22 v22 h-22 Z M92 136 q7 -14 14 0",
    "shoulder": "M44 66 L90 118 M84 116 h24 v22 h-24 Z",
    "other": "M90 138 h20 v26 h-20 Z",
}


def figure(schema: Schema, claims: Claims, words: str) -> str:
    """The drawing as SVG, which `words` describe to who cannot see it."""
    drawn = _Stated(schema, claims)
    head, upper, lower = (drawn.fill(part) for part in ("head", "upper", "lower"))
    legs = "skirt" if drawn.says("skirt", "dress") else "shorts" if drawn.says("shorts") else "trousers"
    sleeves = SHORT_SLEEVES if drawn.short_sleeves else LONG_SLEEVES
    pieces = [
        drawn.path(LONG_HAIR if drawn.long_hair else "", "head", head),
        f'<ellipse cx="60" cy="38" rx="17" ry="21" fill="{SKIN}"/>',
        f'<path d="M54 56 h12 v10 h-12 Z M24 130 l9 2 l-2 14 l-7 -1 Z M96 130 l-9 2 l2 14 l7 -1 Z" fill="{SKIN}"/>',
        f'<path d="{BARE_LEGS}" fill="{SKIN}"/>' if legs != "trousers" or drawn.says("shorts") else "",
        f'<path d="M28 94 h8 l-3 44 h-8 Z M92 94 h-8 l3 44 h8 Z" fill="{SKIN}"/>' if drawn.short_sleeves else "",
        drawn.path("" if drawn.long_hair else HAIR, "head", head),
        drawn.path(LEGS[legs], "lower", lower),
        *(drawn.path(sleeve, "upper", upper) for sleeve in sleeves),
        drawn.path(TORSO, "upper", upper),
        f'<path d="{SHOES}" class="{"stated" if drawn.says("boots") else "open"}" fill="var(--figure-open)"/>',
        drawn.path(HAT, "head", "var(--figure-stated)") if drawn.says("hat", "helmet", "cap") else "",
        *(drawn.path(BAGS[bag], "carrying", "var(--figure-stated)") for bag in drawn.bags),
        _labels(drawn),
    ]
    return (
        f'<svg class="figure" viewBox="0 0 320 250" role="img" aria-label="{escape(words)}">'
        f"<defs>{''.join(drawn.gradients)}</defs>{''.join(pieces)}</svg>"
    )


class _Stated:
    """What the drawing takes from the claims."""

    def __init__(self, schema: Schema, claims: Claims) -> None:
        self.gradients: list[str] = []
        self._claims = [(group, claims[group.name]) for group in schema.groups if group.name in claims]
        self.long_hair = any("hair" in group.name and "long" in _accepted(claim) for group, claim in self._claims)
        self.short_sleeves = any(
            "sleeve" in group.name and "short" in _accepted(claim) for group, claim in self._claims
        )

    @property
    def bags(self) -> list[str]:
        """Which bags are drawn."""
        carried = [value for group, claim in self._claims if group.part == "carrying" for value in _accepted(claim)]
        known = [bag for bag in ("backpack", "hand", "shoulder") if any(bag in value for value in carried)]
        yes = any(
            group.part == "carrying" and group.kind != "multi" and _yes(group, claim) for group, claim in self._claims
        )
        other = [
            value for value in carried if value not in ("none", "no", "yes") and not any(b in value for b in known)
        ]
        return known or (["other"] if other or yes else [])

    def says(self, *things: str) -> bool:
        """Whether a group of that name is `yes`, or a value of that name is accepted."""
        return any(
            _yes(group, claim) if group.name in things else bool(set(things) & set(_accepted(claim)))
            for group, claim in self._claims
        )

    def phrases(self, part: str) -> list[str]:
        """What is stated of a part."""
        return [phrase(group, claim) for group, claim in self._claims if group.part == part]

    def fill(self, part: str) -> str:
        """Its colour: striped for several, hatched where anything else is stated, else none."""
        for group, claim in self._claims:
            if group.part == part and is_color(group):
                colors = [PALETTE[value] for value in _accepted(claim) if value in PALETTE]
                if colors:
                    return colors[0] if len(colors) == 1 else self._stripes(part, colors)
        return "var(--figure-stated)" if self.phrases(part) else "var(--figure-open)"

    def path(self, shape: str, part: str, fill: str) -> str:
        """A piece of clothing or hair."""
        kind = "stated" if self.phrases(part) else "open"
        return f'<path d="{shape}" class="{kind}" fill="{fill}"/>' if shape else ""

    def _stripes(self, part: str, colors: Sequence[str]) -> str:
        stops = "".join(
            f'<stop offset="{place / len(colors):.3f}" stop-color="{color}"/>'
            for index, color in enumerate(colors)
            for place in (index, index + 1)
        )
        name = f"stripes-{part}"
        self.gradients.append(
            f'<linearGradient id="{name}" x1="0" x2="14" y1="0" y2="0" gradientUnits="userSpaceOnUse" '
            f'spreadMethod="repeat" gradientTransform="rotate(35)">{stops}</linearGradient>'
        )
        return f"url(#{name})"


def _labels(drawn: _Stated) -> str:
    """Beside each part what is stated of it."""
    places = {"identity": 14, "head": 36, "upper": 84, "lower": 158, "carrying": 206}
    joints = {"head": (80, 36), "upper": (84, 88), "lower": (82, 160), "carrying": (100, 150)}
    lines = []
    for part, top in places.items():
        phrases = drawn.phrases(part)
        if phrases and part in joints:
            x, y = joints[part]
            lines.append(f'<path class="leader" d="M{x} {y} L122 {top - 4}"/>')
        lines += [
            f'<text x="126" y="{top + 15 * index}">{escape(text)}</text>' for index, text in enumerate(_fit(phrases))
        ]
    return "".join(lines)


def _fit(phrases: Iterable[str], most: int = 4, width: int = 30) -> list[str]:
    shown = [text if len(text) <= width else text[: width - 1] + "…" for text in phrases]
    return shown if len(shown) <= most else [*shown[: most - 1], f"and {len(shown) - most + 1} more"]


def _accepted(claim: Claim) -> list[str]:
    """The values that are acceptable; none of a denial."""
    return [] if claim.denied else [value for values in claim.alternatives for value in values]


def _yes(group: Group, claim: Claim) -> bool:
    return "yes" in _accepted(claim)
