"""The tab about the model: the map of its embeddings, what it is, how good, and for whom less so."""

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from descry.client import InvalidRequest, ModelInfo
from descry.demo.embedding_map import EmbeddingMap, draw
from descry.demo.markup import shown
from descry.demo.search_tab import SERVER
from descry.demo.sentence import plain
from descry.demo.session import Session, Site, readable

HOW_MAP = (
    "There is no map of this gallery yet. Make one with <code>python -m descry.demo.map --out map.npz</code> and start the page "
    "with <code>--map map.npz</code>."
)
HOW_EVALUATION = (
    "The server says nothing of how good the model is. Measure it with <code>python -m descry.trainer.evaluate CHECKPOINT --json "
    "&gt; evaluation.json</code> and start the page with <code>--evaluation evaluation.json</code>: search, attributes, and the gaps "
    "between groups of people then stand here."
)
FUSION = ("par_weight", "max_par", "max_emb")


class InsightTab:
    """Draws the tab and answers its events."""

    def __init__(self, site: Site) -> None:
        """Name what the page was started with."""
        self.site = site

    def draw(self) -> None:
        """The components."""
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=300):
                gr.Markdown("### Map of the gallery")
                self.group = gr.Dropdown([], label="Colour by", elem_id="map-group", filterable=False)
                self.map = shown(elem_id="map")
            with gr.Column(scale=5, min_width=300):
                gr.Markdown("### The model")
                self.card = shown(elem_id="card")

    def wire(self, tab: gr.Tab, session: gr.State) -> None:
        """Connect the events."""
        tab.select(self.look, [session, self.group], [self.group, self.map, self.card], api_name="insight", show_progress="hidden", **SERVER)
        self.group.input(self.color, [session, self.group], self.map, api_name="map", trigger_mode="always_last", show_progress="hidden")

    def look(self, session: Session, group: str | None, request: gr.Request) -> list[Any]:
        """The map with the hits of the last search, and the model card."""
        with session.server(self.site, request) as client:
            model = session.model = client.model
        names = [one.name for one in model.schema.groups]
        chosen = group if group in names else _first(model)
        choices = [(plain(name), name) for name in names]
        return [gr.Dropdown(choices, value=chosen), self.color(session, chosen), self.model_card(model)]

    def color(self, session: Session, group: str) -> str:
        """The map, coloured by what the images show of a group."""
        if self.site.map is None or session.model is None:
            return f'<p class="hint">{HOW_MAP}</p>'
        with readable():
            map = _load(self.site.map, self.site.map.stat().st_mtime if self.site.map.exists() else 0.0)
        model = session.model
        if map.model_digest != model.model_digest:
            return f'<p class="hint">The map is of another model than the served one. {HOW_MAP}</p>'
        chosen = next((one for one in model.schema.groups if one.name == group), model.schema.groups[0])
        said = "" if session.ranking else " Search, and the hits are ringed."
        return (
            f"{draw(map, model.schema, chosen, session.ranking)}<p class='hint'>{escape(map.method)} of {len(map.ids)} embeddings, made when the "
            f"gallery was indexed: near means alike to the model; distances across the map mean little. The cross is the middle of the first five "
            f"hits, as a description has no place of its own here.{said}</p>"
        )

    def model_card(self, model: ModelInfo) -> str:
        """What the model is and how good, in HTML."""
        evaluation: Mapping[str, Any] | None = None
        if self.site.evaluation is not None:
            with readable():
                evaluation = read_evaluation(self.site.evaluation)
        return f"{_facts(model)}{_sureness(model)}{_measured(model, evaluation)}"


def read_evaluation(path: Path) -> Mapping[str, Any]:
    """What `python -m descry.trainer.evaluate --json` printed.

    Raises:
        InvalidRequest: it cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content = content[0] if isinstance(content, list) else content
        return {name: content[name] for name in ("dataset", "search", "intervals", "attributes", "fairness", "fusion", "images")}
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InvalidRequest(f"{path} is no evaluation ({error}); write one with descry.trainer.evaluate --json") from error


@lru_cache(maxsize=1)
def _load(path: Path, changed: float) -> EmbeddingMap:
    """The map, read again when the file has changed."""
    return EmbeddingMap.load(path)


def _first(model: ModelInfo) -> str:
    """What the map shows at first: a colour of the upper body where there is one, as everybody can check it."""
    groups = model.schema.groups
    upper = [group.name for group in groups if group.part == "upper" and "color" in group.name]
    return (upper or [groups[0].name])[0]


def _facts(model: ModelInfo) -> str:
    schema = model.schema
    facts = {
        "method": model.method,
        "attributes": f"{len(schema.groups)} groups, {schema.size} values ({schema.name})",
        "embedding": f"{model.embedding_size} numbers",
        "crops": f"{model.image_size[1]} × {model.image_size[0]} pixels",
        "weight of the attributes": f"{model.par_weight:g}, {model.par_distance} distance",
        "digest": model.model_digest[:16],
    }
    return f'<dl class="facts">{"".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())}</dl>'


def _sureness(model: ModelInfo) -> str:
    calibration = model.calibration
    if not calibration:
        return (
            "<h4>Probabilities</h4><p class='hint'>This model was not calibrated: hits have distances, and the page cannot say “no match”. "
            "<code>python -m descry.trainer.calibrate CHECKPOINT --store</code>, before the export, adds that.</p>"
        )
    rates = calibration.get("no_match", {})
    said = f"“No match” below {calibration['match']['threshold']:.0%}."
    if {"false_alarms", "misses"} <= set(rates):
        said += (
            f" At this threshold {_share(rates['false_alarms'])} of the searches for somebody who was not there found a “match”, and "
            f"{_share(rates['misses'])} of those for somebody who was there found none (split {escape(str(calibration.get('split', '')))})."
        )
    return f"<h4>Probabilities</h4><p>{said}</p>"


def _measured(model: ModelInfo, evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        return f"<h4>Quality</h4><p class='hint'>{HOW_EVALUATION}</p>"
    fusion = evaluation["fusion"]
    same = evaluation["dataset"]["schema"] == model.schema.name and all(
        math.isclose(fusion[name], getattr(model, name), rel_tol=1e-5) for name in FUSION
    )
    warning = "" if same else "<p class='bad'>This evaluation is of another model than the served one.</p>"
    dataset, found, spans = evaluation["dataset"], evaluation["search"]["fused"]["all"], evaluation["intervals"]["fused"]["all"]
    numbers = "".join(
        f'<tr><th scope="row">{label}</th><td>{_bar(found[name])}</td><td>{_share(found[name])}</td><td>{_span(spans.get(name))}</td></tr>'
        for name, label in (("rank1", "first hit is right"), ("rank5", "right within five"), ("rank10", "right within ten"), ("mAP", "mAP"))
    )
    groups = {name: value for name, value in evaluation["attributes"]["groups"].items() if _number(value)}
    attributes = "".join(
        f'<tr><th scope="row">{escape(plain(name))}</th><td>{_bar(value)}</td><td>{_share(value)}</td></tr>' for name, value in groups.items()
    )
    head = '<thead><tr><th scope="col">{}</th><td></td><th scope="col">share</th>{}</tr></thead>'
    return (
        f"{warning}<h4>Search</h4><p class='hint'>{escape(dataset['name'])}, {escape(dataset['split'])} split: {evaluation['images']:,} images, "
        f"{found['queries']:.0f} descriptions</p><table>{head.format('measure', '<th scope=col>95 %</th>')}<tbody>{numbers}</tbody></table>"
        f"<h4>Attributes recognised</h4><table>{head.format('attribute', '')}<tbody>{attributes}</tbody></table>"
        f"<h4>For whom it works less well</h4>{_gaps(evaluation['fairness'])}"
    )


def _gaps(fairness: Mapping[str, Any]) -> str:
    """How search and recognition differ between groups of people."""
    rows = []
    for name, found in fairness.get("search", {}).items():
        for value, numbers in found["values"].items():
            seen = fairness.get("recognition", {}).get(name, {}).get("values", {}).get(value, {})
            cells = (numbers.get("rank1"), seen.get("group_accuracy"))
            shares = "".join(f"<td>{_share(cell) if _number(cell) else '–'}</td>" for cell in cells)
            rows.append(
                f'<tr><th scope="row">{escape(plain(name))}: {escape(plain(value))}</th>{shares}'
                f"<td>{numbers.get('queries', 0):.0f}</td><td>{_span(numbers.get('intervals', {}).get('rank1'))}</td></tr>"
            )
    if not rows:
        return "<p class='hint'>The labels of this data set name no groups of people.</p>"
    head = "".join(f'<th scope="col">{name}</th>' for name in ("group", "first hit right", "attributes right", "descriptions", "95 % of first"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _bar(share: float) -> str:
    return f'<span class="bar"><i style="width:{100 * share:.1f}%"></i></span>'


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _span(interval: Any) -> str:
    return f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f} %" if interval and all(map(_number, interval)) else "–"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
