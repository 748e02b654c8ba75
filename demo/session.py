"""What the page was started with, and what it keeps of one visitor: the question, its answer, and the audit trail."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from descry.client import DescryError, Hit, ModelInfo, Ranking, SearchClient, parse_statements
from descry.client.selection import TrackDistance
from descry.demo.crops import Crops

MOST_ENTRIES = 200  # of the trail
NO_MATCH = "no match"  # as the server says it


@dataclass(frozen=True)
class Site:
    """What the page was started with.

    Attributes:
        connect: gives a client for a user's name; None where nobody has logged in.
        images: the folder that was indexed; None shows placeholders.
        map: the file that `python -m descry.demo.map` wrote.
        evaluation: what `python -m descry.trainer.evaluate --json` printed of the served model.
        presets: words of a description by name.
    """

    connect: Callable[[str | None], SearchClient]
    images: Path | None = None
    map: Path | None = None
    evaluation: Path | None = None
    presets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def crops(self) -> Crops:
        """The indexed images."""
        return Crops(self.images)


@dataclass(frozen=True)
class Settings:
    """How to rank; the names are those of `SearchClient.search`, and None leaves it to the server."""

    k: int = 24
    par_weight: float | None = None
    threshold: float | None = None
    cameras: tuple[str, ...] | None = None
    start: str | None = None
    end: str | None = None
    by_track: TrackDistance | None = None
    tracks: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Asked:
    """A question.

    Attributes:
        words: the description, as on the command line.
        photo: an encoded image that hits shall look like; None asks by the description alone.
        source: where the photo is from, in words.
    """

    words: tuple[str, ...]
    photo: bytes | None = None
    source: str = ""

    def ask(self, client: SearchClient, settings: Settings) -> Ranking:
        """The ranking; the threshold is for descriptions alone, and only where the model has probabilities."""
        statements, given = parse_statements(self.words), vars(settings).copy()
        threshold = given.pop("threshold")
        if self.photo is not None:
            return client.similar(self.photo, statements, **given)
        return client.search(statements, **given, threshold=threshold if client.model.calibration else None)


@dataclass
class Session:
    """What the page keeps of one visitor; events change it in place.

    Attributes:
        user: who logged in; None without a login.
        model: the served model, as last heard of.
        drawn_from: digest of the model that the controls were drawn from.
        wanted: words of the link by which the page was opened, until there are controls for them.
        cameras: that the controls offer.
        asked, settings, ranking: the last question, how it was ranked, and the answer.
        rank: the hit that is explained, from 1; 0 is none.
        track: the images of that hit's track.
        seen: what the photo of the second tab shows, in words.
        trail: what was done, oldest first.
    """

    user: str | None = None
    model: ModelInfo | None = None
    drawn_from: str = ""
    wanted: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    asked: Asked | None = None
    settings: Settings = Settings()
    ranking: Ranking = field(default_factory=Ranking)
    rank: int = 0
    track: list[Hit] = field(default_factory=list)
    seen: tuple[str, ...] = ()
    trail: list[tuple[str, str, str, str]] = field(default_factory=list)

    @contextmanager
    def server(self, site: Site, request: gr.Request | None) -> Iterator[SearchClient]:
        """A connection in the visitor's name; what fails is shown on the page in one line.

        One for each event, so that a server that was restarted, even with another model, is found at once.
        """
        self.user = getattr(request, "username", None)
        with readable(), site.connect(self.user) as client:
            yield client

    def search(self, client: SearchClient, asked: Asked, settings: Settings) -> None:
        """Ask, and keep question and answer; the first hit is explained where it may be the one."""
        ranking = asked.ask(client, settings)
        self.asked, self.settings, self.ranking = asked, settings, ranking
        self.rank = int(bool(ranking) and ranking.verdict != NO_MATCH)
        self.model = client.model
        said = " ".join((f"like {asked.source}" if asked.photo else "", *asked.words)).strip()
        self.note("search", said, f"{len(ranking)} hits, {ranking.verdict}")

    def filtered(self, **changes: Any) -> Settings:
        """The last settings, changed."""
        return replace(self.settings, **changes)

    def note(self, action: str, what: str, outcome: str) -> None:
        """Add a line to the trail."""
        time = datetime.now(timezone.utc).strftime("%H:%M:%S")
        self.trail = [*self.trail, (time, action, what, outcome)][-MOST_ENTRIES:]


@contextmanager
def readable() -> Iterator[None]:
    """Show what fails as one line on the page; the list of attributes that may follow is on the page already."""
    try:
        yield
    except DescryError as error:
        raise refusal(first_line(error), duration=None) from error


def refusal(text: str, duration: float | None = 10) -> gr.Error:
    """What the page says where it will not do something; it stays for so many seconds, or until it is closed.

    Gradio shows the text as markup, and it may hold what a link or a file brought.
    """
    return gr.Error(escape(text, quote=False), duration=duration, print_exception=False)


def first_line(error: DescryError) -> str:
    """What happened and what to do, without the list that may follow."""
    return str(error).splitlines()[0].rstrip(":")
