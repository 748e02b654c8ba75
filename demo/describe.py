"""The controls of a description: drawn from the server's schema, read back as the words of a command line.

The browser makes the words (`describe.js`), so that nothing is asked with statements that are a click old.
"""

from collections.abc import Mapping
from html import escape
from itertools import count
from urllib.parse import urlencode

from descry.client import DescryError, Group, Schema, parse_statements
from descry.client.groups import Claim
from descry.client.schema import Claims
from descry.demo.colors import is_color, swatch
from descry.demo.figure import figure
from descry.demo.sentence import plain, sentence

PARTS = {"identity": "Person", "head": "Head", "upper": "Upper body", "lower": "Lower body", "carrying": "Carrying"}
Odds = Mapping[str, Mapping[str, float]]
# Makes every drawing differ from the one before: the browser redraws only what differs, and does not see clicks.
drawings = count(1)


def parse(schema: Schema, words: list[str]) -> Claims:
    """What words state.

    Raises:
        InvalidRequest: an unknown attribute or value.
    """
    return schema.parse(parse_statements(words))


def fitting(schema: Schema, words: list[str]) -> list[str]:
    """The words that this schema knows: a link or a preset may be of another model."""
    kept = []
    for word in words:
        try:
            kept += [word] if parse(schema, [word]) else []
        except DescryError:
            continue
    return kept


def panel(schema: Schema, words: list[str], odds: Odds | None = None) -> str:
    """One row of buttons for each group, by part of the body; `odds` are probabilities by group and value, to show."""
    claims = parse(schema, words)
    raw = {word.partition("=")[0].removesuffix("!"): word for word in words}
    sections = []
    for part, title in PARTS.items():
        rows = [
            _row(group, claims.get(group.name), raw.get(group.name, ""), (odds or {}).get(group.name, {}))
            for group in schema.groups
            if group.part == part
        ]
        if rows:
            sections.append(f'<section class="part"><h3>{title}</h3>{"".join(rows)}</section>')
    return f'<div class="panel" data-drawn="{next(drawings)}">{"".join(sections)}</div>'


def summary(schema: Schema, words: list[str]) -> str:
    """The figure, the sentence, and the link that asks the same again."""
    claims = parse(schema, words)
    said = sentence(schema, claims)
    link = f'<a href="?{escape(query_string(words))}">Link to this description</a>' if words else ""
    copy = '<button type="button" class="copy">Copy link</button>' if words else ""
    return (
        f'<div class="summary">{figure(schema, claims, said)}<div><p class="sentence" aria-live="polite">'
        f'{escape(said)}</p><p class="link">{link} {copy}</p></div></div>'
    )


def query_string(words: list[str]) -> str:
    """The words as a link's query."""
    return urlencode([("q", word) for word in words])


def word(group: Group, values: tuple[str, ...]) -> str:
    """The word that states values which hold at once."""
    return f"{group.name}={'+'.join(values)}"


def _row(group: Group, claim: Claim | None, raw: str, odds: Mapping[str, float]) -> str:
    """Label, certainty, `not`, and a button for each value."""
    name, label = escape(group.name), escape(plain(group.name))
    chosen = _chosen(group, claim, raw)
    denied = bool(chosen) and claim is not None and claim.denied
    sure = round(100 * claim.confidence) if claim else 100
    colored = is_color(group)
    whole = "" if claim is None or chosen else _chip(raw.partition("=")[2], "custom", True, None, raw)
    values = "".join(
        _chip(value, "", value in chosen, swatch(value) if colored else None, "", odds.get(value))
        for value in group.choices
    )
    joined = {"multi": "exactly these", "choice": "any of these"}.get(group.kind, "")
    return (
        f'<div class="group" role="group" aria-label="{label}" data-group="{name}" data-kind="{group.kind}">'
        f'<div class="head"><span class="name">{label}</span><span class="joined">{joined}</span>'
        f'<label class="sure"><span class="sr">how sure, {label}</span>'
        f'<input type="range" min="5" max="100" step="5" value="{sure}"><output>{sure} %</output></label>'
        f'<button type="button" class="deny" aria-pressed="{_bit(denied)}" aria-label="not: {label}">not</button></div>'
        f'<div class="chips"><button type="button" class="chip any" aria-pressed="{_bit(claim is None)}">any</button>'
        f"{values}{whole}</div></div>"
    )


def _chosen(group: Group, claim: Claim | None, raw: str) -> set[str]:
    """The values whose buttons say the claim; empty where buttons cannot (`a+b|c`)."""
    if claim is None:
        return set()
    values = {value for alternative in claim.alternatives for value in alternative}
    return set() if group.kind == "multi" and not claim.denied and len(claim.alternatives) > 1 else values


def _chip(value: str, kind: str, pressed: bool, color: str | None, raw: str = "", odds: float | None = None) -> str:
    dot = f'<i class="swatch" style="background:{color}"></i>' if color else ""
    chance = "" if odds is None else f'<small class="odds">{100 * odds:.0f} %</small>'
    whole = f' data-word="{escape(raw)}"' if raw else f' data-value="{escape(value)}"'
    return (
        f'<button type="button" class="chip {kind}" aria-pressed="{_bit(pressed)}"{whole}>'
        f"{dot}{escape(plain(value))}{chance}</button>"
    )


def _bit(value: bool) -> str:
    return "true" if value else "false"
