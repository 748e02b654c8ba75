"""The controls beside the hits: what is described, and how it is ranked; drawn from the server's schema."""

from html import escape
from typing import Any

import gradio as gr

from descry.client import DescryError, ModelInfo, Stats
from descry.client.selection import TrackDistance
from descry.demo import describe
from descry.demo.markup import SERVER, drawn, live, shown
from descry.demo.sentence import spaced
from descry.demo.session import Session, Settings, Site, first_line, readable, refusal

WAITING = '<div class="panel"><p class="hint">Asking the server for its attributes …</p></div>'
NOTHING = '<div class="panel"><p class="hint">No attributes yet.</p></div>'
LINK_WORDS = "(...given) => [given[0], new URLSearchParams(location.search).getAll('q')]"
SECONDS = 10.0  # between two looks at the server
SHOWN = 4  # decimals of the threshold; the probabilities are not known better
WAYS: dict[str, TrackDistance | None] = {"images": None, "tracks by best image": "best", "tracks by mean": "mean"}


class Controls:
    """Draws the controls and answers their events; the handlers' docstrings are the page's API documentation."""

    def __init__(self, site: Site) -> None:
        """Name what the page was started with."""
        self.site = site

    def draw_description(self) -> None:
        """What is asked for."""
        self.summary = shown(script="summary.js", elem_id="summary")
        self.presets = live("choose.js", elem_id="presets")
        self.panel = live("describe.js", WAITING, [], elem_id="describe")

    def draw_settings(self) -> None:
        """How it is ranked."""
        with gr.Row(elem_classes="settings"):
            weight, threshold = "Weight of the attributes", "No match below"
            self.weight = gr.Slider(0, 5, 1, step=0.05, label=weight, elem_id="weight", min_width=200)
            self.threshold = gr.Slider(0, 1, 0.5, step=0.01, label=threshold, elem_id="threshold", min_width=200)
        with gr.Accordion("Cameras, times, tracks", open=False, elem_id="filters"):
            self.cameras = gr.CheckboxGroup([], label="Cameras (none ticked: all)")
            with gr.Row():
                self.begin = gr.Textbox(label="From", value="", placeholder="2024-05-06T08:00", min_width=120)
                self.end = gr.Textbox(label="Before", value="", placeholder="2024-05-06T20:00", min_width=120)
                self.count = gr.Slider(1, 100, 24, step=1, label="Hits", min_width=160)
            self.by = gr.Radio(list(WAYS), value="images", label="Rank")

    @property
    def settings(self) -> list[gr.components.Component]:
        """What ranks, in the order of `settings_of`."""
        return [self.count, self.weight, self.threshold, self.cameras, self.begin, self.end, self.by]

    @property
    def changes(self) -> list[Any]:
        """The events by which a visitor changes a setting."""
        inputs = [self.weight.input, self.threshold.input, self.cameras.input, self.by.input]
        return [*inputs, self.count.release, self.begin.submit, self.end.submit]

    @property
    def described(self) -> list[gr.components.Component]:
        """What `filled` gives."""
        return [self.panel, self.summary]

    def wire(self, page: gr.Blocks, session: gr.State, status: gr.HTML) -> Any:
        """Connect the events; returns the one of opening the page."""
        drawn_from_server = [*self.described, self.presets, self.weight, self.threshold, self.cameras]
        opened = page.load(
            self.open, [session, self.panel], [status, *drawn_from_server], js=LINK_WORDS, api_name="open", **SERVER
        )
        gr.Timer(SECONDS).tick(
            self.look,
            [session, self.panel],
            [status, *drawn_from_server],
            api_name="status",
            show_progress="hidden",
            **SERVER,
        )
        self.panel.change(
            self.describe,
            [session, self.panel],
            self.summary,
            api_name="sentence",
            show_progress="hidden",
            trigger_mode="always_last",
            queue=False,
        )
        return opened

    def open(self, session: Session, words: list[str], request: gr.Request) -> list[Any]:
        """The state of the server, and the controls, with the statements `words`."""
        session.drawn_from, session.cameras, session.wanted = "", (), tuple(words or [])
        return self.look(session, words, request)

    def look(self, session: Session, words: list[str], request: gr.Request) -> list[Any]:
        """The state of the server; where its model has changed the controls are drawn anew, with the same words."""
        session.user = getattr(request, "username", None)
        same: list[Any] = [gr.skip()] * 5
        try:
            with self.site.connect(session.user) as client:
                stats = client.stats()
                model = None if session.drawn_from == stats.model_digest else client.model
        except DescryError as error:
            panel = gr.skip() if session.drawn_from else drawn(NOTHING, value=[])
            return [_state(session, error), panel, *same]
        cameras = self._offer_cameras(session, stats)
        if model is None:
            return [_state(session, stats), *same, cameras]
        session.model, session.drawn_from = model, model.model_digest
        words, session.wanted = words or list(session.wanted), ()
        return [_state(session, stats), *self._fitted(model, words), cameras]

    def _offer_cameras(self, session: Session, stats: Stats) -> Any:
        """The cameras of the gallery, where they have changed."""
        if session.cameras == tuple(stats.cameras):
            return gr.skip()
        session.cameras = tuple(stats.cameras)
        return gr.CheckboxGroup([(name or "(none)", name) for name in stats.cameras])

    def _fitted(self, model: ModelInfo, words: list[str]) -> list[Any]:
        """Everything but the cameras, for this model."""
        for word in set(words) - set(describe.fitting(model.schema, words)):
            gr.Warning(f"{escape(word)} is left out: this model does not know it")
        fitting = {name: describe.fitting(model.schema, list(given)) for name, given in self.site.presets.items()}
        buttons = "".join(
            f'<button type="button" class="chip" data-choice="{escape(name)}">{escape(name)}</button>'
            for name, given in fitting.items()
            if len(given) > 1
        )
        limit = (model.calibration or {}).get("match", {}).get("threshold")
        return [
            *self.filled(model, words),
            drawn(f'<div class="presets" role="group" aria-label="presets">{buttons}</div>'),
            gr.Slider(value=model.par_weight, maximum=max(5, 2 * model.par_weight)),
            gr.Slider(visible=False) if limit is None else gr.Slider(value=round(limit, SHOWN), visible=True),
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
            raise refusal(f"no preset {name!r}; there are {', '.join(self.site.presets)}")
        return self.filled(model, list(self.site.presets[name]))

    def empty(self, session: Session) -> list[Any]:
        """Take back every statement."""
        return self.filled(self._model(session), [])

    def filled(self, model: ModelInfo, words: list[str]) -> list[Any]:
        """Buttons and summary with those of these statements that the model knows."""
        kept = describe.fitting(model.schema, words)
        return [drawn(describe.panel(model.schema, kept), value=kept), describe.summary(model.schema, kept)]

    def _model(self, session: Session) -> ModelInfo:
        if session.model is None:
            raise refusal("the server has not answered yet; the page looks again every few seconds")
        return session.model


def settings_of(
    count: float, weight: float, threshold: float, cameras: list[str] | None, begin: str, end: str, by: str
) -> Settings:
    """How to rank, from what the controls hold."""
    return Settings(
        int(count), weight, threshold, tuple(cameras) if cameras else None, begin or None, end or None, WAYS.get(by)
    )


def _state(session: Session, found: Stats | DescryError) -> str:
    """One line on the server, and who is logged in."""
    user = f" · logged in as <b>{escape(session.user)}</b>" if session.user else ""
    if isinstance(found, DescryError):
        kind, text = "down", f"The server does not answer: {escape(first_line(found))}"
    else:
        cameras = len([name for name in found.cameras if name])
        kind, text = "up", f"{spaced(found.rows)} images · {cameras} cameras"
    return f'<p class="state {kind}" role="status"><i></i>{text}{user}</p>'
