"""Components whose markup is drawn here, and whose value the visitor's clicks make in the browser."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

FOLDER = Path(__file__).parent
SERVER: dict[str, Any] = {"concurrency_id": "server", "concurrency_limit": 4}  # of events that ask the server
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}  # of what only follows an event
NARROW = "(max-width: 1000px)"  # where the columns stand below each other, as in style.css


def live(script: str, markup: str = "", value: Any = None, **settings: Any) -> gr.HTML:
    """A component that shows `markup`; `script`, a file beside this one, says what a click makes its value."""
    return gr.HTML(
        value,
        html_template="${markup}",
        js_on_load=(FOLDER / script).read_text(encoding="utf-8"),
        apply_default_css=False,
        markup=markup,
        **settings,
    )


def shown(markup: str = "", script: str | None = None, **settings: Any) -> gr.HTML:
    """A component that shows markup, which is its value."""
    source = None if script is None else (FOLDER / script).read_text(encoding="utf-8")
    return gr.HTML(markup, js_on_load=source, apply_default_css=False, **settings)


def drawn(markup: str, **changes: Any) -> gr.HTML:
    """What an event returns to a `live` component: other markup, and where it is named another value."""
    return gr.HTML(markup=markup, **changes)


def scroll_to(element: str) -> str:
    """JavaScript that brings an element into view where it stands below the others."""
    return (
        f"() => {{ if (matchMedia('{NARROW}').matches) "
        f"document.getElementById('{element}')?.scrollIntoView({{behavior: 'smooth'}}) }}"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of markup; the first cell of a row names it, and a column without a head holds bars."""
    head = "".join(f'<th scope="col">{name}</th>' if name else "<td></td>" for name in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def facts(entries: Mapping[str, str]) -> str:
    """What is known, by name."""
    lines = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in entries.items())
    return f'<dl class="facts">{lines}</dl>'


def bar(share: float, kind: str = "") -> str:
    """A share in 0..1 as a bar."""
    return f'<span class="bar {kind}"><i style="width:{100 * share:.1f}%"></i></span>'


def hint(text: str) -> str:
    """What a visitor may do, or why there is nothing."""
    return f'<p class="hint">{text}</p>'
