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
FONT = ("system-ui", "sans-serif")  # of the reader's machine: nothing is fetched
LANGUAGE = '<link rel="icon" href="data:,">'


def build(site: Site) -> gr.Blocks:
    """The page."""
    search = SearchTab(site)
    photo, gallery, insight = PhotoTab(site, search), GalleryTab(site), InsightTab(site)
    with gr.Blocks(title="Descry", analytics_enabled=False, fill_width=True, delete_cache=(KEEP_UPLOADS, KEEP_UPLOADS)) as page:
        session = gr.State(Session())
        with gr.Row(elem_classes="masthead"):
            shown('<h1>Descry</h1><p class="motto">Find a person by description</p>', elem_id="title")
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


def launch(site: Site, **settings: Any) -> tuple[Any, str, str]:
    """Serve the page; `settings` are those of Gradio's `launch` that differ from the safe ones."""
    return build(site).queue(max_size=32).launch(
        **{
            "server_name": "127.0.0.1",
            "share": False,
            "ssr_mode": False,
            "footer_links": [],
            "theme": gr.themes.Default(primary_hue="indigo", neutral_hue="slate", font=FONT, font_mono=FONT),
            "css": (FOLDER / "style.css").read_text(encoding="utf-8"),
            "head": LANGUAGE,
            "max_file_size": "10mb",
            "strict_cors": True,
            **settings,
        }
    )
