"""Ranked hits as cards, and why one of them is where it is."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from descry.client import Agreement, Group, Hit, ModelInfo
from descry.client.results import UNCALIBRATED
from descry.demo.crops import LARGE, Crops
from descry.demo.describe import drawings, parse
from descry.demo.markup import bar, table
from descry.demo.sentence import plain, sentence, value_words
from descry.demo.session import NO_MATCH, Asked, Session

TICKS = 6  # of a card; the rest is counted
FRAMES = 12  # of a track that are shown
BEFORE = (
    '<div class="blank"><p>Describe a person and press <b>Search</b>: the crops that fit best stand here, '
    "the best first.</p></div>"
)


def hits(session: Session, crops: Crops) -> str:
    """What the gallery answers to the last question."""
    asked, ranking = session.asked, session.ranking
    if asked is None or session.model is None:
        return BEFORE
    tags = crops.tags([(hit.image, f"hit {hit.rank}") for hit in ranking])
    groups = {group.name: group for group in session.model.schema.groups}
    cards = "".join(f"<li>{_card(hit, tag, session.rank, groups)}</li>" for hit, tag in zip(ranking, tags, strict=True))
    body = f'<ol class="hits">{cards}</ol>'
    if ranking.verdict == NO_MATCH and ranking:
        more = f"Show the nearest {len(ranking)} all the same"
        body = f'<details class="nearest"><summary>{more}</summary>{body}</details>'
    heading = _heading(asked, session.model) + _verdict(session)
    return f'<div class="found" data-drawn="{next(drawings)}">{heading}{body}</div>'


def explanation(session: Session, crops: Crops, regions: str = "") -> str:
    """Why the chosen hit is there, what else the photo shows, and what can be done with it; `regions` is a figure."""
    if not 1 <= session.rank <= len(session.ranking) or session.model is None:
        return ""
    hit, model = session.ranking[session.rank - 1], session.model
    weight = model.par_weight if session.settings.par_weight is None else session.settings.par_weight
    return (
        f'<article class="why" data-drawn="{next(drawings)}" aria-label="Why hit {hit.rank} is here">'
        f"<header>{crops.tag(hit.image, f'hit {hit.rank}, large', LARGE)}<div><h3>Hit {hit.rank}</h3>"
        f"{_facts(hit)}{_actions(hit, crops)}</div></header>{regions}"
        f"{_distance(hit, weight)}{_stated(hit.agreement)}{_track(hit, session.track, crops)}{_shown(hit, model)}"
        "</article>"
    )


def place(hit: Hit) -> str:
    """Camera and time, as far as they are known."""
    camera = str(hit.metadata.get("camera", ""))
    return ", ".join(text for text in (f"camera {camera}" if camera else "", _time(hit.metadata.get("time"))) if text)


def percent(probability: float) -> str:
    """A probability of a match: never 0 % or 100 %, which nothing is."""
    return f"{min(99, max(1, round(100 * probability)))} %"


def _heading(asked: Asked, model: ModelInfo) -> str:
    said = sentence(model.schema, parse(model.schema, list(asked.words)))
    if asked.photo is None:
        return f"<h2>{escape(said)}</h2>"
    return f"<h2>Looks like {escape(asked.source)}{f', but: {escape(said)}' if asked.words else ''}</h2>"


def _verdict(session: Session) -> str:
    """Whether the server thinks that somebody matches, and by what."""
    ranking, asked, model = session.ranking, session.asked, session.model
    assert asked is not None and model is not None
    count = f"{len(ranking)} {'tracks' if session.settings.by_track else 'images'}, best first"
    if not ranking:
        said = "<b>Nobody is left.</b> No row passes the filters: widen cameras or times."
        return f'<p class="verdict none" role="status">{said}</p>'
    if ranking.verdict == UNCALIBRATED:
        why = "likeness has no probability" if asked.photo else "this model has no calibration"
        return f'<p class="verdict">{count}. Ranked by distance: {why}.</p>'
    limit = session.settings.threshold
    limit = float((model.calibration or {})["match"]["threshold"]) if limit is None else limit
    best = f"with a probability of {percent(ranking.probability or 0)}"
    if ranking.verdict == NO_MATCH:
        said = f"<b>No match in this gallery.</b> The nearest is the person described {best}, below the threshold of"
        return f'<p class="verdict none" role="status">{said} {100 * limit:.3g} %.</p>'
    return f'<p class="verdict match" role="status"><b>Match.</b> The first hit fits {best}. {count}.</p>'


def _card(hit: Hit, tag: str, chosen: int, groups: Mapping[str, Group]) -> str:
    odds = f"{hit.distance:.3f}" if hit.probability is None else percent(hit.probability)
    frames = f"<span>{len(hit.frames)} images</span>" if hit.frames else ""
    ticks = "".join(_tick(one, groups[one.group]) for one in hit.agreement[:TICKS])
    rest = hit.agreement[TICKS:]
    more = f"<span>{sum(one.agrees for one in rest)} of {len(rest)} more agree</span>" if rest else ""
    return (
        f'<button type="button" class="hit" data-event="hit" data-rank="{hit.rank}" '
        f'aria-pressed="{"true" if hit.rank == chosen else "false"}">{tag}'
        f'<span class="top"><b>{hit.rank}</b><span class="odds" title="{_odds_title(hit)}">{odds}</span></span>'
        f'<span class="place">{escape(place(hit))}</span>{frames}<span class="ticks">{ticks}{more}</span></button>'
    )


def _odds_title(hit: Hit) -> str:
    return "distance" if hit.probability is None else "probability that this is the person described"


def _tick(one: Agreement, group: Group) -> str:
    """What the photo shows of a stated group, and whether that is as stated."""
    sign, said = ("✓", "agrees") if one.agrees else ("✗", "differs")
    shown = value_words(group, [one.predicted] if one.predicted in group.choices else one.predicted.split("+"))
    return (
        f'<span class="{said}"><span aria-hidden="true">{sign}</span><span class="sr">{said}: </span> '
        f"{escape(shown)}</span>"
    )


def _facts(hit: Hit) -> str:
    chance = "" if hit.probability is None else f"<b>{percent(hit.probability)}</b> that this is the person described"
    others = {key: str(value) for key, value in hit.metadata.items() if key not in ("image", "camera", "time")}
    known = [chance, escape(place(hit)), *(escape(f"{plain(key)} {value}") for key, value in others.items())]
    lines = "".join(f"<li>{fact}</li>" for fact in known if fact)
    return f'<ul class="facts">{lines}<li class="id">{escape(hit.id)}</li></ul>'


def _actions(hit: Hit, crops: Crops) -> str:
    if crops.root is None:
        return '<p class="hint">Started without --images: a hit cannot be searched with.</p>'
    return (
        f'<p class="actions"><button type="button" data-event="similar" data-rank="{hit.rank}">Find similar</button>'
        f'<button type="button" data-event="regions" data-rank="{hit.rank}">Which regions count</button></p>'
    )


def _distance(hit: Hit, weight: float) -> str:
    """The two summands as one bar."""
    attributes, appearance = weight * hit.par_distance, hit.embedding_distance
    share = attributes / (attributes + appearance) if attributes + appearance > 0 else 0.0
    words = f"attributes {attributes:.3f}, appearance {appearance:.3f}"
    return (
        f"<h4>Distance {hit.distance:.3f}</h4>"
        f'<div class="summands" role="img" aria-label="{words}">'
        f'<i class="par" style="width:{100 * share:.1f}%"></i></div>'
        f'<p class="legend"><span><i class="par"></i>attributes {attributes:.3f} ({weight:g} × {hit.par_distance:.3f})'
        f'</span><span><i class="emb"></i>appearance {appearance:.3f}</span></p>'
    )


def _stated(agreement: Sequence[Agreement]) -> str:
    """For each stated attribute how probable it is in this photo, and its share of the attribute distance."""
    if not agreement:
        return ""
    total = sum(one.term for one in agreement) or 1.0
    rows = [
        (
            f"{_sign(one)} {escape(plain(one.group))}",
            escape(one.stated),
            escape(plain(one.predicted)),
            _probability(one.probability, "" if one.agrees else "against"),
            f"{100 * one.term / total:.0f} %",
        )
        for one in agreement
    ]
    return f"<h4>As described?</h4>{table(('attribute', 'stated', 'shows', 'as stated', 'of distance'), rows)}"


def _sign(one: Agreement) -> str:
    """A tick or a cross."""
    kind, sign = ("agrees", "✓") if one.agrees else ("differs", "✗")
    return f'<span class="sign {kind}" role="img" aria-label="{kind}">{sign}</span>'


def _probability(value: float, kind: str = "") -> str:
    return f'<span class="odds-bar">{bar(value, kind)}<span class="number">{value:.2f}</span></span>'


def _shown(hit: Hit, model: ModelInfo) -> str:
    """Everything that the photo shows; each can be changed and searched for."""
    predictions = model.schema.predict(hit.scores, model.calibrated(hit.scores))
    rows = [
        (
            escape(plain(group.name)),
            escape(plain(one.value)),
            _probability(one.probability),
            _select(group.name, group.choices, one.value),
        )
        for group, one in zip(model.schema.groups, predictions, strict=True)
    ]
    return f"<h4>What the photo shows</h4>{table(('attribute', 'shows', 'probability', 'same person, but…'), rows)}"


def _select(name: str, choices: Sequence[str], value: str) -> str:
    """What the attribute may be changed to."""
    options = "".join(
        f'<option value="{escape(choice)}">{escape(plain(choice))}</option>' for choice in choices if choice != value
    )
    label = escape(f"same person, but with another {plain(name)}")
    group = escape(name)
    return f'<select data-group="{group}" aria-label="{label}"><option value="">change…</option>{options}</select>'


def _track(hit: Hit, track: Sequence[Hit], crops: Crops) -> str:
    """The images of the same track, in the order of time."""
    if not track:
        return ""
    ordered = sorted(track, key=lambda one: str(one.metadata.get("time", "")))[:FRAMES]
    tags = crops.tags([(one.image, place(one) or one.id) for one in ordered])
    times = [escape(_time(one.metadata.get("time"))) for one in ordered]
    strip = "".join(f"<li>{tag}<span>{time}</span></li>" for tag, time in zip(tags, times, strict=True))
    name = escape(str(hit.metadata["track"]))
    return f'<h4>Track {name}</h4><ol class="track" tabindex="0" aria-label="images of the track">{strip}</ol>'


def _time(value: Any) -> str:
    """A time as it is read; what is no ISO 8601 as it stands."""
    try:
        return datetime.fromisoformat(str(value).replace("Z", "+00:00")).strftime("%d %b %Y %H:%M")
    except ValueError:
        return str(value or "")
