"""Renderers: pure functions from an explanation to text."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from calico_debug.cli.render.terminal import Style
from calico_debug.model.explanation import FlowExplanation

Renderer = Callable[[FlowExplanation, Style], str]

_PLACES = {
    "text": ("text", "render"),
    "wide": ("wide", "render"),
    "json": ("json", "render"),
    "yaml": ("yaml", "render"),
    "jsonl": ("json", "render_line"),
}


def renderer(output: str) -> Renderer:
    """The renderer of a format of `calico_debug.cli.options.FORMATS`. Its text ends with a line end.

    Imported when asked for: only YAML needs the YAML library.
    """
    module, function = _PLACES[output]
    found: Renderer = getattr(import_module(f"{__name__}.{module}"), function)
    return found
