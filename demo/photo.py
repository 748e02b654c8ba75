"""The tab where a photo is read: its attributes with probabilities, to be edited and searched with."""

from typing import Any

import gradio as gr
import numpy as np

from descry.client import Description, ModelInfo
from descry.client.images import image_bytes
from descry.demo import describe
from descry.demo.controls import settings_of
from descry.demo.markup import PRIVATE, SERVER, drawn, live, scroll_to
from descry.demo.search_tab import SearchTab
from descry.demo.session import Asked, Session, Site, refusal

WAITING = (
    '<div class="panel"><p class="hint">A photo of one person, cut to that person: its attributes stand here.</p></div>'
)
SOURCE = "your photo"


class PhotoTab:
    """Draws the tab and answers its events."""

    def __init__(self, site: Site, search: SearchTab) -> None:
        """Searches end up in the tab `search`."""
        self.site = site
        self.search = search

    def draw(self) -> None:
        """The components."""
        with gr.Row(elem_classes="photo-row", equal_height=False):
            with gr.Column(scale=3, min_width=280):
                self.photo = gr.Image(
                    type="pil",
                    image_mode="RGB",
                    sources=["upload", "clipboard", "webcam"],
                    label="Photo of one person",
                    height=420,
                    buttons=[],
                    elem_id="photo",
                )
                self.similar = gr.Button("Who looks like this?", variant="primary", elem_id="photo-similar")
            with gr.Column(scale=7, min_width=300):
                gr.Markdown("What the photo shows. Press what should be different, then search.")
                with gr.Row():
                    self.but = gr.Button("Same person, but with my changes", elem_id="photo-but", min_width=200)
                    self.by_words = gr.Button("Search by these attributes", elem_id="photo-search", min_width=200)
                self.panel = live("describe.js", WAITING, [], elem_id="photo-panel")

    def wire(self, session: gr.State, tabs: gr.Tabs) -> None:
        """Connect the events; what finds people opens the first tab."""
        self.photo.change(self.read, [session, self.photo], self.panel, api_name="read_photo", **SERVER)
        settings, outcome = self.search.controls.settings, self.search.outcome
        like, changed = [session, self.photo, *settings], [session, self.photo, self.panel, *settings]
        for found in (
            self.similar.click(self.find_similar, like, outcome, api_name="photo_similar", **SERVER),
            self.but.click(self.find_changed, changed, outcome, api_name="photo_but", **SERVER),
        ):
            self._show(found, tabs)
        filled = self.by_words.click(
            self.fill, [session, self.panel], self.search.controls.described, api_name="photo_attributes"
        )
        asked = [session, self.search.controls.panel, *settings]
        self._show(filled.success(self.search.search, asked, outcome, api_visibility="private", **SERVER), tabs)

    def _show(self, found: Any, tabs: gr.Tabs) -> None:
        shown = found.success(lambda: gr.Tabs(selected="describe"), None, tabs, **PRIVATE)
        shown.success(None, js=scroll_to("results-column"), **PRIVATE)

    def read(self, session: Session, photo: Any, request: gr.Request) -> gr.HTML:
        """The attributes of a photo, each value with its probability; without a photo none."""
        session.seen = ()
        if photo is None:
            return drawn(WAITING, value=[])
        with session.server(self.site, request) as client:
            seen, model = client.describe(photo), client.model
        session.model, session.seen = model, tuple(_words(model, seen))
        session.note("photo read", SOURCE, f"{len(seen.predictions)} attributes")
        return drawn(
            describe.panel(model.schema, list(session.seen), odds(model, seen.scores)), value=list(session.seen)
        )

    def find_similar(self, session: Session, photo: Any, request: gr.Request, *settings: Any) -> list[Any]:
        """Rank the gallery by likeness to the photo."""
        return self._find(session, photo, (), request, settings)

    def find_changed(
        self, session: Session, photo: Any, words: list[str], request: gr.Request, *settings: Any
    ) -> list[Any]:
        """Rank the gallery by likeness to the photo, but with what `words` say other than the photo shows."""
        changed = tuple(word for word in words or [] if word not in session.seen)
        if not changed:
            raise refusal("nothing differs from the photo: press what should be different")
        return self._find(session, photo, changed, request, settings)

    def fill(self, session: Session, words: list[str]) -> list[Any]:
        """Describe the person by these words, in the tab for that."""
        if session.model is None or not words:
            raise refusal("give a photo first: its attributes are what is searched for")
        return self.search.controls.filled(session.model, words)

    def _find(
        self, session: Session, photo: Any, words: tuple[str, ...], request: gr.Request, settings: Any
    ) -> list[Any]:
        if photo is None:
            raise refusal("give a photo first: drop one, paste one or take one")
        return self.search.find(session, Asked(words, image_bytes(photo), SOURCE), settings_of(*settings), request)


def odds(model: ModelInfo, scores: np.ndarray) -> dict[str, dict[str, float]]:
    """Probabilities in 0..1 by group and value; of a group with several values at once that of each value by itself."""
    calibrated, found = model.calibrated(scores), {}
    for group in model.schema.groups:
        part = calibrated[model.schema.slices[group.name]]
        if group.kind == "multi":
            found[group.name] = dict(zip(group.values, map(float, part), strict=True))
        else:
            found[group.name] = {value: group.probability((value,), part) for value in group.choices}
    return found


def _words(model: ModelInfo, seen: Description) -> list[str]:
    """What the photo shows, as words."""
    return [f"{one.group}={one.value}" for one in seen.predictions]
