"""The tab of the gallery: what it holds, adding and deleting rows, its state, and what this visitor did."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from descry.client import DescryError, InvalidRequest, SearchClient, Stats
from descry.demo.markup import SERVER, bar, facts, hint, shown, table
from descry.demo.sentence import spaced
from descry.demo.session import Session, Site, first_line, refusal

ADDED = "added"  # folder below the images for what the page adds
DIGEST = 16  # characters of an image's digest that name it
MOST_BARS = 40  # or lines
FEW_DAYS = 3  # whose rows are counted by the hour


class GalleryTab:
    """Draws the tab and answers its events."""

    def __init__(self, site: Site) -> None:
        """Name what the page was started with."""
        self.site = site

    def draw(self) -> None:
        """The components."""
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=300):
                gr.Markdown("### What it holds")
                self.stats = shown(elem_id="stats")
                with gr.Row():
                    self.times = gr.Button("Count by time", elem_id="times", min_width=140)
                    self.check = gr.Button("Check every row", elem_id="check", min_width=140)
                self.report = shown(elem_id="report")
            with gr.Column(scale=4, min_width=300):
                gr.Markdown("### Add images")
                self.files = gr.File(
                    file_count="multiple",
                    file_types=["image"],
                    label="Crops, each of one person",
                    height=150,
                    elem_id="files",
                )
                self.camera = gr.Textbox(label="Camera", placeholder="7", elem_id="camera")
                self.add = gr.Button("Add to the gallery", variant="primary", elem_id="add")
                gr.Markdown("### Delete images")
                self.ids = gr.Textbox(label="Ids, one a line", lines=3, elem_id="ids")
                with gr.Row():
                    self.selected = gr.Button("Take the selected hit", elem_id="selected", min_width=140)
                    self.delete = gr.Button("Delete for good", variant="stop", elem_id="delete", min_width=140)
                self.done = shown(elem_id="done")
        gr.Markdown("### What you did since you opened the page")
        self.trail = shown(elem_id="trail")

    def wire(self, tab: gr.Tab, session: gr.State) -> None:
        """Connect the events."""
        both = [self.stats, self.trail]
        tab.select(self.look, session, both, api_name="gallery", show_progress="hidden", **SERVER)
        self.times.click(self.count_times, session, self.report, api_name="gallery_times", **SERVER)
        self.check.click(self.verify, session, self.report, api_name="gallery_check", **SERVER)
        changed = [self.done, *both]
        self.add.click(
            self.add_images,
            [session, self.files, self.camera],
            [*changed, self.files],
            api_name="add",
            show_progress_on=self.done,
            **SERVER,
        )
        self.selected.click(self.take_selected, [session, self.ids], self.ids, api_name="selected")
        self.delete.click(
            self.delete_rows,
            [session, self.ids],
            [*changed, self.ids],
            api_name="delete",
            show_progress_on=self.done,
            **SERVER,
        )

    def look(self, session: Session, request: gr.Request) -> list[str]:
        """What the gallery holds, and what this visitor did."""
        try:
            with self.site.connect(getattr(request, "username", None)) as client:
                return [_stats(client.stats()), _trail(session)]
        except DescryError as error:
            return [hint(escape(first_line(error))), _trail(session)]

    def count_times(self, session: Session, request: gr.Request) -> str:
        """How many rows there are of each day, or of each hour where there are few days. Needs the role `admin`."""
        with session.server(self.site, request) as client:
            times = [
                str(row.get("time") or "") for page in client.pages(vectors=False, rows=1000) for row in page.metadata
            ]
        session.note("counted", "rows by time", f"{len(times)} rows")
        return _times(times)

    def verify(self, session: Session, request: gr.Request, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        """Check the file's structure and every row. Needs the role `admin`."""
        with session.server(self.site, request) as client:
            found = client.verify(lambda rows: progress((rows, None), unit="rows"))
        session.note("checked", "every row", "sound" if found.sound else "damaged")
        bad = [*(f"{id}: {reason}" for id, reason in found.damaged.items()), *found.problems]
        verdict = "all sound" if found.sound else f"{len(bad)} damaged, and left out of every search"
        return _report(f"{spaced(found.rows)} rows checked: {verdict}.", found.sound, bad)

    def add_images(
        self,
        session: Session,
        files: list[str] | None,
        camera: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        """Give each file a row, named by its content: the same image is never there twice. Needs the role `write`."""
        if not files:
            raise refusal("drop images first")
        added, failed = 0, []
        with session.server(self.site, request) as client:
            client.stats()
            for path in progress.tqdm(files, desc="adding", unit="images"):
                try:
                    added += self._add(client, Path(path), camera.strip()) == "added"
                except InvalidRequest as error:
                    failed.append(f"{Path(path).name}: {first_line(error)}")
        counts = {"added": added, "already there": len(files) - added - len(failed), "refused": len(failed)}
        outcome = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        session.note("add", f"{len(files)} images", outcome)
        return [_report(f"{outcome}.", not failed, failed), *self.look(session, request), None]

    def take_selected(self, session: Session, ids: str) -> str:
        """The ids, with that of the explained hit."""
        if not session.rank:
            raise refusal("search, and select a hit first")
        return "\n".join(dict.fromkeys([*ids.split("\n"), session.ranking[session.rank - 1].id])).strip()

    def delete_rows(self, session: Session, ids: str, request: gr.Request) -> list[Any]:
        """Delete the rows of these ids, one a line, and the files that this page added. Needs the role `write`."""
        named = [id.strip() for id in ids.split("\n") if id.strip()]
        if not named:
            raise refusal("name the ids of the rows, one a line")
        with session.server(self.site, request) as client:
            statuses = client.delete(named)
        for id in named:
            self._forget(id)
        deleted = [id for id, status in statuses.items() if status == "deleted"]
        absent = [id for id, status in statuses.items() if status != "deleted"]
        session.note("delete", ", ".join(named), f"{len(deleted)} deleted")
        report = _report(f"{len(deleted)} deleted.", not absent, [f"no row: {id}" for id in absent])
        return [report, *self.look(session, request), "\n".join(absent)]

    def _add(self, client: SearchClient, path: Path, camera: str) -> str:
        """The image is kept below the image folder, so that hits can show it; without one the row has none."""
        content = path.read_bytes()
        id = f"{ADDED}/{hashlib.sha256(content).hexdigest()[:DIGEST]}{path.suffix.lower()}"
        status = client.index(content, id, {"image": id, "name": path.name, **({"camera": camera} if camera else {})})
        if self.site.images is not None:
            target = self.site.images / id
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content)
        return status

    def _forget(self, id: str) -> None:
        """Delete the file that the page itself had added."""
        folder, _, name = id.partition("/")
        if self.site.images is not None and folder == ADDED and name and "/" not in name and name not in (".", ".."):
            (self.site.images / ADDED / name).unlink(missing_ok=True)


def _counts(counts: Mapping[str, int], what: str) -> str:
    """Counts by name, as bars."""
    most = max(counts.values(), default=1)
    rows = [(escape(name), bar(count / most, "wide"), spaced(count)) for name, count in counts.items()][:MOST_BARS]
    more = hint(f"and {len(counts) - MOST_BARS} more") if len(counts) > MOST_BARS else ""
    return table((what, "", "images"), rows, "bars") + more


def _stats(stats: Stats) -> str:
    span = f"{stats.first_time} to {stats.last_time}" if stats.first_time else "no row has a time"
    cameras = {f"camera {name}" if name else "no camera": count for name, count in stats.cameras.items()}
    known = {
        "images": spaced(stats.rows),
        "times": escape(span.replace("T", " ")),
        "gallery": escape(stats.gallery),
        "model": f"{escape(stats.model_digest[:DIGEST])}, the one that is served: another could not open the gallery",
    }
    return facts(known) + _counts(cameras, "camera")


def _times(times: Sequence[str]) -> str:
    days = {time[:10] for time in times if time}
    length, what = (10, "day") if len(days) > FEW_DAYS else (13, "hour")
    counts = Counter(time[:length].replace("T", " ") or "no time" for time in times)
    return _counts(dict(sorted(counts.items())), what)


def _trail(session: Session) -> str:
    if not session.trail:
        return hint("Nothing yet. The server keeps an audit log of its own, with your name where you logged in.")
    rows = [[escape(cell) for cell in entry] for entry in reversed(session.trail)]
    return table(("UTC", "action", "what", "outcome"), rows, "trail")


def _report(verdict: str, sound: bool, lines: Sequence[str]) -> str:
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines[:MOST_BARS])
    return f'<p class="{"good" if sound else "bad"}" role="status">{verdict}</p><ul>{listed}</ul>'
