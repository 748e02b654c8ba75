"""The search page: four tabs over one server. It knows no attribute; the server says which there are."""

from typing import Any

import gradio as gr

from descry.demo.gallery_tab import GalleryTab
from descry.demo.insight import InsightTab
from descry.demo.markup import FOLDER, shown
from descry.demo.photo import PhotoTab
from descry.demo.search_tab import SearchTab
from descry.demo.session import Session, Site

KEEP_UPLOADS = 600  # seconds that what a visitor uploads stays in the page's folder
WAITING = 32  # events, above which the page asks to come back later
FONT = ("system-ui", "sans-serif")  # of the reader's machine: nothing is fetched
TITLE = '<h1>Descry</h1><p class="motto">Find a person by description</p>'


def build(site: Site) -> gr.Blocks:
    """The page."""
    search = SearchTab(site)
    photo, gallery, insight = PhotoTab(site, search), GalleryTab(site), InsightTab(site)
    keep = (KEEP_UPLOADS, KEEP_UPLOADS)
    with gr.Blocks(title="Descry", analytics_enabled=False, fill_width=True, delete_cache=keep) as page:
        session = gr.State(Session())
        with gr.Row(elem_classes="masthead"):
            shown(TITLE, elem_id="title")
            status = shown(elem_id="status")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Describe", id="describe"):
                search.draw()
            with gr.Tab("Photo", id="photo"):
                photo.draw()
            with gr.Tab("Gallery", id="gallery") as gallery_tab:
                gallery.draw()
            with gr.Tab("Insight", id="insight") as insight_tab:
                insight.draw()
        search.wire(page, session, status)
        photo.wire(session, tabs)
        gallery.wire(gallery_tab, session)
        insight.wire(insight_tab, session)
    return page


def launch(page: gr.Blocks, **settings: Any) -> tuple[Any, str, str]:
    """Serve the page; `settings` are those of Gradio's `launch` that differ from the safe ones."""
    safe = {
        "server_name": "127.0.0.1",
        "share": False,
        "run_history": False,  # else the browser keeps every question, with the crops that answered it
        "ssr_mode": False,
        "footer_links": [],
        "theme": theme(),
        "css": _text("style.css"),
        "head": head(),
        "max_file_size": "10mb",
        "strict_cors": True,
    }
    return page.queue(max_size=WAITING).launch(**{**safe, **settings})


def theme() -> gr.themes.Base:
    """Gradio's own, with the fonts of the reader's machine and buttons that can be read."""
    base = gr.themes.Default(primary_hue="indigo", neutral_hue="slate", font=FONT, font_mono=FONT)
    return base.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_cancel_background_fill="#b42318",
        button_cancel_background_fill_hover="#8f1c13",
        slider_color="*primary_600",
    )


def head() -> str:
    """What the page adds to its head."""
    return f'<link rel="icon" href="data:,"><style>{_text("frame.css")}</style>'


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
