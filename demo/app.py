"""The search page: one control an attribute, ranked crops, and why each hit is where it is.

The page knows no attribute: it asks the server for the schema whenever it is opened, and draws its controls from that.
"""

import json
from pathlib import Path, PurePosixPath
from typing import Any

import gradio as gr
from PIL import Image

from descry.client import DescryError, Group, Hit, SearchClient, thumbnail

ANY = "any"
NOTHING_SELECTED = "Select a hit to see why it is there."
PARTS = {"identity": "Person", "head": "Head", "upper": "Upper body", "lower": "Lower body", "carrying": "Carrying"}
COLUMNS = ("attribute", "stated", "photo shows", "agrees", "probability", "mismatch")
CROP = (256, 512)  # pixels of a shown crop, width and height
KEEP_IMAGES = 600  # seconds that a shown crop stays in the page's cache
FONT = ("system-ui", "sans-serif")  # of the reader's machine: nothing is fetched
CSS = """
.gradio-container { max-width: 1600px !important; margin: 0 auto; }
.hits .thumbnail-item { aspect-ratio: auto; height: auto; overflow: visible; border: none; box-shadow: none; }
.hits .thumbnail-item img { height: 250px; width: 100%; object-fit: contain; }
.hits .caption-label { position: static; max-width: 100%; border: none; text-align: center; font-size: 12px;
    white-space: pre-line; overflow-wrap: anywhere; opacity: 1 !important; }
.hits .thumbnail-item.selected { outline: 2px solid var(--color-accent); }
"""

Ranking = list[dict[str, Any]]


def build(url: str, images: Path | None) -> gr.Blocks:
    """The page for the server at `url`, with crops from the folder `images`."""

    def search(statements: dict[str, Any], results: int, measured: bool, par_weight: float) -> tuple[Any, ...]:
        """Rank the gallery by `{"gender": "female", "carrying": ["bag"]}`; the best hit is explained at once."""
        hits, weight = ask(url, statements or {}, int(results), None if measured else par_weight)
        ranking = [explanation(hit, weight) for hit in hits]
        return [(crop(hit, images), caption(hit)) for hit in hits], ranking, 1, *explain(1, ranking)

    with gr.Blocks(
        title="Descry", analytics_enabled=False, fill_width=True, delete_cache=(KEEP_IMAGES, KEEP_IMAGES)
    ) as page:
        gr.Markdown("# Descry\nDescribe a person; what you leave at *any* does not count.")
        ranking = gr.State([])
        statements = gr.JSON({}, visible="hidden")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                start = gr.Button("Search", variant="primary")
                reload = gr.Button("Ask the server for its attributes again", size="sm", render=False)

                @gr.render(triggers=[page.load, reload.click])
                def draw_controls() -> None:
                    draw_schema(url, statements)

                settings = draw_settings()
                reload.render()
            with gr.Column(scale=5):
                gallery, rank, heading, table = draw_hits()

        # The controls are drawn anew at `any`; the statements must not outlive them.
        reload.click(None, None, statements, js="() => [{}]", api_visibility="private")
        start.click(
            search,
            [statements, *settings],
            [gallery, ranking, rank, heading, table],
            api_name="search",
            show_progress_on=gallery,
            concurrency_id="server",
            concurrency_limit=4,
        )
        gallery.select(selected_rank, None, rank, api_visibility="private")
        rank.change(explain, [rank, ranking], [heading, table], api_name="explain")
    return page


def ask(url: str, statements: dict[str, Any], results: int, par_weight: float | None) -> tuple[list[Hit], float]:
    """The hits, and the weight that ranked them; None asks for the one measured with the model.

    A connection of its own, so that a restarted server, even with another model, is found at once.
    """
    try:
        with SearchClient(url) as client:
            hits = client.search(statements, results, par_weight)
            return hits, client.model.par_weight if par_weight is None else par_weight
    except DescryError as error:
        # The first line says it; the list of attributes that may follow is on the page already.
        raise gr.Error(str(error).splitlines()[0].rstrip(":"), duration=None, print_exception=False) from error


def draw_settings() -> tuple[gr.Slider, gr.Checkbox, gr.Slider]:
    """How many hits, and how much the attributes weigh."""
    results = gr.Slider(1, 100, 20, step=1, label="Results")
    measured = gr.Checkbox(True, label="Weigh attributes as measured with the model")
    weight = gr.Slider(0, 5, 1, step=0.1, label="Weight of the attributes", visible=False)
    measured.change(lambda chosen: gr.Slider(visible=not chosen), measured, weight, api_visibility="private")
    return results, measured, weight


def draw_hits() -> tuple[gr.Gallery, gr.Number, gr.Markdown, gr.Dataframe]:
    """The ranked crops, and below them why one of them is there."""
    gallery = gr.Gallery(
        show_label=False,
        columns=6,
        height=640,
        object_fit="contain",
        interactive=False,
        allow_preview=False,
        buttons=["fullscreen"],
        format="jpeg",
        elem_classes="hits",
    )
    with gr.Row():
        rank = gr.Number(1, label="Explain the hit of rank", precision=0, minimum=1, min_width=160)
        with gr.Column(scale=4):
            heading = gr.Markdown(NOTHING_SELECTED)
    table = gr.Dataframe(headers=list(COLUMNS), interactive=False, label="Why", type="array")
    return gallery, rank, heading, table


def draw_schema(url: str, statements: gr.JSON) -> None:
    """The server's attributes by body part, or a note; each change gathers the controls into `statements`."""
    try:
        with SearchClient(url) as client:
            schema = client.schema
    except DescryError as error:
        gr.Markdown(f"**No attributes yet:** {error}.")
        return
    names, controls = [], []
    for part, title in PARTS.items():
        groups = [group for group in schema.groups if group.part == part]
        if groups:
            with gr.Accordion(title, open=True), gr.Row():
                controls += [control(group) for group in groups]
            names += [group.name for group in groups]
    gr.on([one.change for one in controls], None, controls, statements, js=collect(names), api_visibility="private")


def control(group: Group) -> gr.Dropdown:
    """A dropdown that starts at `any`; a multi group takes several values and is `any` while empty."""
    label = group.name.replace("_", " ")
    multi = group.kind == "multi"
    return gr.Dropdown(
        list(group.choices) if multi else [ANY, *group.choices],
        value=[] if multi else ANY,
        multiselect=multi,
        label=f"{label} (empty: {ANY})" if multi else label,
        interactive=True,
        min_width=280 if multi else 130,
    )


def collect(names: list[str]) -> str:
    """JavaScript that gathers the controls into statements in the browser, so that no search runs on old ones."""
    return f"""(...chosen) => [Object.fromEntries({json.dumps(names)}.map((name, index) => [name, chosen[index]])
        .filter(([name, value]) => value && value.length && value !== "{ANY}"))]"""


def explanation(hit: Hit, weight: float) -> dict[str, Any]:
    """What the page keeps of a hit that was ranked with the attributes at `weight`."""
    rows = [
        [
            one.group.replace("_", " "),
            one.stated,
            one.predicted,
            "yes" if one.agrees else "no",
            f"{one.probability:.2f}",
            f"{one.term:.3f}",
        ]
        for one in hit.agreement
    ]
    summands = f"{weight:g} × attributes {hit.par_distance:.4f} + appearance {hit.embedding_distance:.4f}"
    return {"id": hit.id, "distances": f"distance {hit.distance:.4f} = {summands}", "rows": rows}


def explain(rank: float | None, ranking: Ranking) -> tuple[str, list[list[str]]]:
    """Per stated attribute how the hit of this rank agrees, counted from 1."""
    if not rank or not 1 <= rank <= len(ranking):
        return NOTHING_SELECTED, []
    hit = ranking[int(rank) - 1]
    return f"**{hit['id']}** · {hit['distances']}", hit["rows"]


def selected_rank(event: gr.SelectData) -> int:
    """The rank of the hit that was clicked."""
    return int(event.index) + 1


def crop(hit: Hit, images: Path | None) -> Image.Image:
    """The whole crop, or a placeholder that says so."""
    return thumbnail(images, hit.image, CROP)


def caption(hit: Hit) -> str:
    """Rank, distance, how many of the stated attributes agree, and the id without its folders."""
    agreeing = sum(one.agrees for one in hit.agreement)
    return f"{hit.rank} · {hit.distance:.3f} · {agreeing} of {len(hit.agreement)} agree\n{PurePosixPath(hit.id).name}"


def launch(url: str, images: Path | None, host: str, port: int) -> None:
    """Serve the page until it is stopped; nothing leaves this machine."""
    build(url, images).queue(max_size=32).launch(
        server_name=host,
        server_port=port,
        share=False,
        footer_links=[],
        theme=gr.themes.Default(primary_hue="indigo", font=FONT, font_mono=FONT),
        css=CSS,
        max_file_size="1mb",
    )
