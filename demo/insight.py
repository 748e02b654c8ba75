"""The tab about the model: the map of its embeddings, and its card."""

from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from descry.client import InvalidRequest, ModelInfo
from descry.demo.embedding_map import EmbeddingMap, draw
from descry.demo.markup import SERVER, hint, shown
from descry.demo.model_card import model_card, read_evaluation
from descry.demo.sentence import plain
from descry.demo.session import Session, Site, readable

HOW = (
    "Make one with <code>python -m descry.demo.map --out map.npz</code> and start the page with "
    "<code>--map map.npz</code>."
)
LEGEND = (
    "near means alike to the model; distances across the map mean little. The cross is on that of the first five hits "
    "which the others are nearest to, as a description has no place of its own here."
)


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
        asked = [session, self.group]
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        tab.select(self.look, asked, [self.group, self.map, self.card], api_name="insight", **quiet, **SERVER)
        self.group.input(self.color, asked, self.map, api_name="map", trigger_mode="always_last", **quiet)

    def look(self, session: Session, group: str | None, request: gr.Request) -> list[Any]:
        """The map with the hits of the last search, and the model card."""
        with session.server(self.site, request) as client:
            model = session.model = client.model
        names = [one.name for one in model.schema.groups]
        chosen = group if group in names else _first(model)
        choices = gr.Dropdown([(plain(name), name) for name in names], value=chosen)
        with readable():
            evaluation = read_evaluation(self.site.evaluation) if self.site.evaluation else None
        return [choices, self.color(session, chosen), model_card(model, evaluation)]

    def color(self, session: Session, group: str | None) -> str:
        """The map, coloured by what the images show of a group."""
        model = session.model
        if self.site.map is None or model is None:
            return hint(f"There is no map of this gallery yet. {HOW}")
        with readable():
            map = _load(self.site.map, _changed(self.site.map))
        if map.model_digest != model.model_digest:
            return hint(f"The map is of another model than the served one. {HOW}")
        chosen = next((one for one in model.schema.groups if one.name == group), model.schema.groups[0])
        rings = "" if session.ranking else " Search, and the hits are ringed."
        said = f"{escape(map.method)} of {len(map.ids)} embeddings, made when the gallery was indexed: {LEGEND}{rings}"
        return draw(map, model.schema, chosen, session.ranking) + hint(said)


@lru_cache(maxsize=1)
def _load(path: Path, changed: float) -> EmbeddingMap:
    """The map, read again when the file has changed."""
    return EmbeddingMap.load(path)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError as error:
        raise InvalidRequest(f"cannot read the map {path}: {error.strerror}") from error


def _first(model: ModelInfo) -> str:
    """What the map shows at first: a colour of the upper body where there is one, as everybody can check it."""
    groups = model.schema.groups
    upper = [group.name for group in groups if group.part == "upper" and "color" in group.name]
    return (upper or [groups[0].name])[0]
