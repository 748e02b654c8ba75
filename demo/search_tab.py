"""The tab where a person is described: the controls, the ranked hits, and why one of them is there."""

from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from descry.client import DescryError, Hit, ModelInfo, SearchClient, Stats
from descry.client.images import image_bytes
from descry.client.query_report import ranking_json
from descry.client.statements import parse_statements
from descry.demo import describe, results
from descry.demo.crops import LARGE, image_tag
from descry.demo.markup import drawn, live, scroll_to, shown
from descry.demo.regions import regions, shaded
from descry.demo.session import Asked, Session, Settings, Site, first_line, readable

WAITING = '<div class="panel"><p class="hint">Asking the server for its attributes …</p></div>'
LINK_WORDS = "(...given) => [given[0], new URLSearchParams(location.search).getAll('q')]"
SECONDS = 10.0  # between two looks at the server
SERVER = {"concurrency_id": "server", "concurrency_limit": 4}
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}


class SearchTab:
    """Draws the tab and answers its events; the handlers' docstrings are the documentation of the page's API."""

    def __init__(self, site: Site) -> None:
        """Name what the page was started with."""
        self.site = site

    def draw(self) -> None:
        """The components."""
        with gr.Row(elem_classes="search-row", equal_height=False):
            with gr.Column(scale=4, min_width=300, elem_classes="describe-column"):
                self.summary = shown(script="summary.js", elem_id="summary")
                self.presets = live("choose.js", elem_id="presets")
                self.panel = live("describe.js", WAITING, [], elem_id="describe")
                with gr.Row(elem_classes="start"):
                    self.clear = gr.Button("Clear", elem_id="clear", min_width=80, scale=1)
                    self.start = gr.Button("Search", variant="primary", elem_id="search", min_width=140, scale=3)
            with gr.Column(scale=7, min_width=300, elem_id="results-column"):
                self._draw_settings()
                self.hits = live("results.js", results.BEFORE, elem_id="results")
            with gr.Column(scale=4, min_width=300, elem_id="why-column"):
                self.why = live("results.js", "", elem_id="why")
                self.regions = shown(elem_id="regions")
        self.answer = gr.JSON({}, visible="hidden")

    def _draw_settings(self) -> None:
        with gr.Row(elem_classes="settings"):
            self.weight = gr.Slider(0, 5, 1, step=0.05, label="Weight of the attributes", elem_id="weight", min_width=200)
            self.threshold = gr.Slider(0, 1, 0.5, step=0.01, label="No match below", elem_id="threshold", min_width=200)
        with gr.Accordion("Cameras, times, tracks", open=False, elem_id="filters"):
            self.cameras = gr.CheckboxGroup([], label="Cameras (none ticked: all)")
            with gr.Row():
                self.begin = gr.Textbox(label="From", placeholder="2024-05-06T08:00", min_width=120)
                self.end = gr.Textbox(label="Before", placeholder="2024-05-06T20:00", min_width=120)
                self.count = gr.Slider(1, 100, 24, step=1, label="Hits", min_width=160)
            self.by = gr.Radio(["images", "tracks by best image", "tracks by mean"], value="images", label="Rank")

    @property
    def settings(self) -> list[gr.components.Component]:
        """What ranks, in the order of `settings_of`."""
        return [self.count, self.weight, self.threshold, self.cameras, self.begin, self.end, self.by]

    @property
    def controls(self) -> list[gr.components.Component]:
        """What is drawn from the server's schema."""
        return [self.panel, self.summary, self.presets, self.weight, self.threshold, self.cameras]

    @property
    def outcome(self) -> list[gr.components.Component]:
        """What a search changes."""
        return [self.hits, self.why, self.regions, self.answer]

    def wire(self, page: gr.Blocks, session: gr.State, status: gr.HTML) -> None:
        """Connect the events."""
        everything = [status, *self.controls]
        opened = page.load(self.open, [session, self.panel], everything, js=LINK_WORDS, api_name="open", **SERVER)
        opened.then(self.search_link, [session, self.panel, *self.settings], self.outcome, **PRIVATE, **SERVER)
        timer = gr.Timer(SECONDS)
        timer.tick(self.look, session, everything, api_name="status", show_progress="hidden", **SERVER)
        self.panel.change(
            self.describe,
            [session, self.panel],
            self.summary,
            api_name="sentence",
            show_progress="hidden",
            trigger_mode="always_last",
            queue=False,
        )
        asked = [session, self.panel, *self.settings]
        searched = gr.on([self.start.click], self.search, asked, self.outcome, api_name="search", show_progress_on=self.hits, **SERVER)
        searched.success(None, js=scroll_to("results-column"), **PRIVATE)
        chosen = self.presets.choose(self.preset, [session, self.presets], [self.panel, self.summary], api_name="preset")
        chosen.success(self.search, asked, self.outcome, api_visibility="private", show_progress_on=self.hits, **SERVER)
        self.clear.click(self.empty, session, [self.panel, self.summary], api_name="clear")
        gr.on(
            [self.weight.input, self.threshold.input, self.cameras.input, self.by.input, self.count.release, self.begin.submit, self.end.submit],
            self.rerank,
            [session, *self.settings],
            self.outcome,
            api_name="rerank",
            trigger_mode="always_last",
            show_progress="hidden",
            **SERVER,
        )
        self._wire_hits(session)

    def _wire_hits(self, session: gr.State) -> None:
        opened = self.hits.hit(
            self.explain, [session, self.hits], [self.why, self.regions], api_name="explain", trigger_mode="always_last", show_progress="hidden", **SERVER
        )
        opened.success(None, js=scroll_to("why-column"), **PRIVATE)
        for event, handler, name in [
            (self.why.similar, self.similar, "similar"),
            (self.why.change_one, self.change_one, "same_person_but"),
        ]:
            found = event(handler, [session, self.why, *self.settings], self.outcome, api_name=name, show_progress_on=self.hits, **SERVER)
            found.success(None, js=scroll_to("results-column"), **PRIVATE)
        self.why.regions(self.show_regions, [session, self.why], self.regions, api_name="regions", **SERVER)

    def open(self, session: Session, words: list[str], request: gr.Request) -> list[Any]:
        """The state of the server, and the controls, with the statements `words`; returns what the page shows."""
        session.model = None
        return self._look(session, request, words or [])

    def look(self, session: Session, request: gr.Request) -> list[Any]:
        """The state of the server; the controls are drawn anew where its model has changed."""
        return self._look(session, request, [])

    def _look(self, session: Session, request: gr.Request, words: list[str]) -> list[Any]:
        session.user = getattr(request, "username", None)
        unchanged = [gr.skip()] * len(self.controls)
        try:
            with self.site.connect(session.user) as client:
                stats, model = client.stats(), session.model
                if model is None or model.model_digest != stats.model_digest:
                    model = client.model
        except DescryError as error:
            note = f'<div class="panel"><p class="hint">No attributes yet.</p></div>'
            return [_state(session, error), *([drawn(note, value=[]), *unchanged[1:]] if session.model is None else unchanged)]
        if model is session.model:
            return [_state(session, stats), *unchanged]
        session.model = model
        return [_state(session, stats), *self._controls(model, stats, words)]

    def _controls(self, model: ModelInfo, stats: Stats, words: list[str]) -> list[Any]:
        schema, calibration = model.schema, model.calibration
        kept = describe.fitting(schema, words)
        for word in (word for word in words if word not in kept):
            gr.Warning(f"{word} is left out: this model does not know it")
        presets = {name: describe.fitting(schema, list(words)) for name, words in self.site.presets.items()}
        buttons = "".join(
            f'<button type="button" class="chip" data-choice="{escape(name)}">{escape(name)}</button>'
            for name, words in presets.items()
            if len(words) > 1
        )
        threshold = gr.Slider(value=calibration["match"]["threshold"], visible=True) if calibration else gr.Slider(visible=False)
        return [
            drawn(describe.panel(schema, kept), value=kept),
            describe.summary(schema, kept),
            drawn(f'<div class="presets" role="group" aria-label="presets">{buttons}</div>'),
            gr.Slider(value=model.par_weight, maximum=max(5, 2 * model.par_weight)),
            threshold,
            gr.CheckboxGroup([(name or "(none)", name) for name in stats.cameras], value=[]),
        ]

    def describe(self, session: Session, words: list[str]) -> str:
        """What `words` such as `["gender=female", "hat!=yes"]` ask for: a figure, a sentence, and a link."""
        if session.model is None:
            return ""
        with readable():
            return describe.summary(session.model.schema, words or [])

    def preset(self, session: Session, name: str) -> list[Any]:
        """Fill in the preset of this name."""
        model = self._model(session)
        if name not in self.site.presets:
            raise gr.Error(f"no preset {name!r}; there are {', '.join(self.site.presets)}", print_exception=False)
        return self.filled(model, list(self.site.presets[name]))

    def empty(self, session: Session) -> list[Any]:
        """Take back every statement."""
        return self.filled(self._model(session), [])

    def filled(self, model: ModelInfo, words: list[str]) -> list[Any]:
        """Controls and summary with these statements."""
        kept = describe.fitting(model.schema, words)
        return [drawn(describe.panel(model.schema, kept), value=kept), describe.summary(model.schema, kept)]

    def search(self, session: Session, words: list[str], request: gr.Request, *settings: Any) -> list[Any]:
        """Rank the gallery by `words`; None as weight or threshold is the one measured with the model."""
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

    def _like(self, session: Session, hit: Hit, words: tuple[str, ...], settings: Any, request: gr.Request) -> list[Any]:
        with readable():
            photo = image_bytes(self.site.crops.load(hit.image))
        return self.find(session, Asked(words, photo, f"hit {hit.rank}, {hit.id}"), settings_of(*settings), request)

    def find(self, session: Session, asked: Asked, settings: Settings, request: gr.Request) -> list[Any]:
        """Ask, and show the answer."""
        with session.server(self.site, request) as client:
            session.search(client, asked, settings)
            why = self._explanation(session, client)
            elements = client.schema.elements
        return [drawn(results.hits(session, self.site.crops), value=session.rank), why, "", ranking_json(session.ranking, elements)]

    def explain(self, session: Session, rank: int, request: gr.Request) -> list[Any]:
        """Why the hit of this rank is there, counted from 1."""
        self._hit(session, rank)
        session.rank = int(rank)
        with session.server(self.site, request) as client:
            return [self._explanation(session, client), ""]

    def show_regions(self, session: Session, rank: int, request: gr.Request) -> str:
        """Which regions of the hit of this rank make it fit the description."""
        hit, asked = self._hit(session, rank), session.asked
        if asked is None or not asked.words:
            raise gr.Error("regions are measured against a description: state an attribute and search", print_exception=False)
        with session.server(self.site, request) as client:
            crop = self.site.crops.load(hit.image)
            effect = regions(client, crop, parse_statements(asked.words), session.settings.par_weight)
        tag = image_tag(shaded(crop, effect), "regions that count", LARGE)
        said = "Lit: covering it makes the hit fit worse. Red: covering it makes it fit better. Dark: it makes no difference."
        return f'<figure class="regions">{tag}<figcaption>{said}</figcaption></figure>'

    def _explanation(self, session: Session, client: SearchClient) -> gr.HTML:
        track: list[Hit] = []
        if session.rank and session.asked is not None:
            name = session.ranking[session.rank - 1].metadata.get("track")
            if name:
                track = session.asked.ask(client, session.filtered(tracks=(str(name),), by_track=None, k=results.FRAMES))
        return drawn(results.explanation(session, self.site.crops, track), value=session.rank)

    def _hit(self, session: Session, rank: float | None) -> Hit:
        if not rank or not 1 <= rank <= len(session.ranking):
            raise gr.Error(f"there is no hit of rank {rank}: search first; there are {len(session.ranking)}", print_exception=False)
        return session.ranking[int(rank) - 1]

    def _model(self, session: Session) -> ModelInfo:
        if session.model is None:
            raise gr.Error("the server has not answered yet; the page looks again every few seconds", print_exception=False)
        return session.model


def settings_of(
    count: float, weight: float | None, threshold: float | None, cameras: list[str] | None, begin: str, end: str, by: str
) -> Settings:
    """How to rank, from what the page's controls hold."""
    ways = {"tracks by best image": "best", "tracks by mean": "mean"}
    return Settings(int(count), weight, threshold, tuple(cameras) if cameras else None, begin or None, end or None, ways.get(by))


def _state(session: Session, found: Stats | DescryError) -> str:
    """One line on the server, and who is logged in."""
    user = f" · logged in as <b>{escape(session.user)}</b>" if session.user else ""
    if isinstance(found, DescryError):
        return f'<p class="state down" role="status"><i></i>The server does not answer: {escape(first_line(found))}{user}</p>'
    cameras = len([name for name in found.cameras if name])
    return f'<p class="state up" role="status"><i></i>{found.rows:,} images · {cameras} cameras{user}</p>'.replace(",", " ")
