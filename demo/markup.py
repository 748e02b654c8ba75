"""Components whose markup is drawn here, and whose value the visitor's clicks make in the browser."""

from pathlib import Path
from typing import Any

import gradio as gr

FOLDER = Path(__file__).parent
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
