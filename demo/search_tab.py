"""The tab where a person is described: the controls, the ranked hits, and why one of them is there."""

from typing import Any

import gradio as gr

from descry.client import Hit, SearchClient
from descry.client.images import image_bytes
from descry.client.query_report import ranking_json
from descry.client.statements import parse_statements
from descry.demo import results
from descry.demo.controls import Controls, settings_of
from descry.demo.crops import LARGE, image_tag
from descry.demo.markup import PRIVATE, SERVER, drawn, live, scroll_to
from descry.demo.regions import regions, shaded
from descry.demo.session import Asked, Session, Settings, Site, readable, refusal

ELEMENTWISE = ("terms", "scores")
LEGEND = "Lit: covering it makes the hit fit worse. Red: covering it makes it fit better. Dark: it makes no difference."


class SearchTab:
    """Draws the tab and answers its events; the handlers' docstrings are the page's API documentation."""

    def __init__(self, site: Site) -> None:
        """Name what the page was started with."""
        self.site = site
        self.controls = Controls(site)

    def draw(self) -> None:
        """The components."""
        with gr.Row(elem_classes="search-row", equal_height=False):
            with gr.Column(scale=4, min_width=300, elem_classes="describe-column"):
                self.controls.draw_description()
                with gr.Row(elem_classes="start"):
                    self.clear = gr.Button("Clear", elem_id="clear", min_width=80, scale=1)
                    self.start = gr.Button("Search", variant="primary", elem_id="search", min_width=140, scale=3)
            with gr.Column(scale=7, min_width=300, elem_id="results-column"):
                self.controls.draw_settings()
                self.hits = live("results.js", results.BEFORE, elem_id="results")
            with gr.Column(scale=4, min_width=300, elem_id="why-column"):
                self.why = live("results.js", "", elem_id="why")
        self.answer = gr.JSON({}, visible=False)

    @property
    def outcome(self) -> list[gr.components.Component]:
        """What a search changes."""
        return [self.hits, self.why, self.answer]

    def wire(self, page: gr.Blocks, session: gr.State, status: gr.HTML) -> None:
        """Connect the events."""
        controls, outcome = self.controls, self.outcome
        asked = [session, controls.panel, *controls.settings]
        looked = {"show_progress": "minimal", "show_progress_on": self.hits, **SERVER}
        opened = controls.wire(page, session, status)
        opened.then(self.search_link, asked, outcome, **PRIVATE, **SERVER)
        started = self.start.click(self.search, asked, outcome, api_name="search", **looked)
        started.success(None, js=scroll_to("results-column"), **PRIVATE)
        chosen = controls.presets.choose(
            controls.preset, [session, controls.presets], controls.described, api_name="preset"
        )
        chosen.success(self.search, asked, outcome, api_visibility="private", **looked)
        self.clear.click(controls.empty, session, controls.described, api_name="clear")
        again = {"trigger_mode": "always_last", "show_progress": "hidden", **SERVER}
        gr.on(controls.changes, self.rerank, [session, *controls.settings], outcome, api_name="rerank", **again)
        opened = self.hits.hit(self.explain, [session, self.hits], self.why, api_name="explain", **again)
        opened.success(None, js=scroll_to("why-column"), **PRIVATE)
        likewise = [session, self.why, *controls.settings]
        for found in (
            self.why.similar(self.similar, likewise, outcome, api_name="similar", **looked),
            self.why.change_one(self.change_one, likewise, outcome, api_name="same_person_but", **looked),
        ):
            found.success(None, js=scroll_to("results-column"), **PRIVATE)
        self.why.regions(self.show_regions, [session, self.why], self.why, api_name="regions", **SERVER)

    def search(self, session: Session, words: list[str], request: gr.Request, *settings: Any) -> list[Any]:
        """Rank the gallery by `words`, `["gender=female", "hat!=yes"]`; the last output is the answer as data."""
        return self.find(session, Asked(tuple(words or [])), settings_of(*settings), request)

    def search_link(self, session: Session, words: list[str], request: gr.Request, *settings: Any) -> list[Any]:
        """As `search`, where the page was opened by a link that describes somebody."""
        if not words or session.model is None:
            return [gr.skip()] * len(self.outcome)
        return self.search(session, words, request, *settings)

    def rerank(self, session: Session, request: gr.Request, *settings: Any) -> list[Any]:
        """Ask the last question again with other settings; nothing where none was asked."""
        if session.asked is None:
            return [gr.skip()] * len(self.outcome)
        return self.find(session, session.asked, settings_of(*settings), request)

    def similar(self, session: Session, rank: int, request: gr.Request, *settings: Any) -> list[Any]:
        """Rank the gallery by likeness to the hit of this rank."""
        return self._like(session, self._hit(session, rank), (), settings, request)

    def change_one(self, session: Session, words: list[str], request: gr.Request, *settings: Any) -> list[Any]:
        """Rank the gallery by likeness to the explained hit, but with what `words` say, `["upper_color=red"]`."""
        return self._like(session, self._hit(session, session.rank), tuple(words), settings, request)

    def find(self, session: Session, asked: Asked, settings: Settings, request: gr.Request) -> list[Any]:
        """Ask, and show the answer."""
        with session.server(self.site, request) as client:
            session.search(client, asked, settings)
            self._follow_track(session, client)
            answer = _answer(session, client)
        crops = self.site.crops
        return [
            drawn(results.hits(session, crops), value=session.rank),
            drawn(results.explanation(session, crops), value=session.rank),
            answer,
        ]

    def explain(self, session: Session, rank: int, request: gr.Request) -> gr.HTML:
        """Why the hit of this rank is there, counted from 1."""
        self._hit(session, rank)
        session.rank = int(rank)
        with session.server(self.site, request) as client:
            self._follow_track(session, client)
        return drawn(results.explanation(session, self.site.crops), value=session.rank)

    def show_regions(self, session: Session, rank: int, request: gr.Request) -> gr.HTML:
        """Which regions of the hit of this rank make it fit the description."""
        hit, asked = self._hit(session, rank), session.asked
        if asked is None or not asked.words:
            raise refusal("regions are measured against a description: state an attribute and search")
        with session.server(self.site, request) as client:
            crop = self.site.crops.load(hit.image)
            effect = regions(client, crop, parse_statements(asked.words), session.settings.par_weight)
        tag = image_tag(shaded(crop, effect), "regions that count", LARGE)
        figure = f'<figure class="regions">{tag}<figcaption>{LEGEND}</figcaption></figure>'
        return drawn(results.explanation(session, self.site.crops, figure), value=session.rank)

    def _like(self, session: Session, hit: Hit, words: tuple[str, ...], settings: Any, request: gr.Request) -> Any:
        with readable():
            photo = image_bytes(self.site.crops.load(hit.image))
        return self.find(session, Asked(words, photo, f"hit {hit.rank}, {hit.id}"), settings_of(*settings), request)

    def _follow_track(self, session: Session, client: SearchClient) -> None:
        """Find the images of the explained hit's track."""
        name = session.ranking[session.rank - 1].metadata.get("track") if session.rank else None
        session.track = []
        if name and session.asked is not None:
            settings = session.filtered(tracks=(str(name),), by_track=None, k=results.FRAMES)
            session.track = list(session.asked.ask(client, settings))

    def _hit(self, session: Session, rank: float | None) -> Hit:
        if not rank or not 1 <= rank <= len(session.ranking):
            raise refusal(f"there is no hit of rank {rank}: search first; there are {len(session.ranking)}")
        return session.ranking[int(rank) - 1]


def _answer(session: Session, client: SearchClient) -> dict[str, Any]:
    """The ranking for programs, without its numbers element by element: the browser reads all that is sent."""
    answer = ranking_json(session.ranking, client.schema.elements)
    hits = [{name: value for name, value in hit.items() if name not in ELEMENTWISE} for hit in answer["hits"]]
    return answer | {"hits": hits}
