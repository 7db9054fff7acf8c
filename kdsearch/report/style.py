"""Colours and marks that all charts share; told apart in print and by colour-blind readers (Okabe and Ito 2008)."""

from __future__ import annotations

from collections.abc import Iterable

COLOURS = {
    "none": "#7f7f7f",
    "logits": "#0072b2",
    "hidden": "#e69f00",
    "attention": "#d55e00",
    "regressor": "#009e73",
}
"""By what is distilled; see ``colour_of``."""
SYMBOLS = {
    "none": "triangle-up",
    "logits": "circle",
    "hidden": "square",
    "attention": "cross",
    "regressor": "diamond",
}
"""By distillation path, in Plotly's words."""
SEVERAL = "#cc79a7"
"""Where several things are distilled at once."""
MARK_COLOUR = "#a05195"
"""Of the teacher and of published points."""
LINE_COLOUR = "#333333"
EDGE_COLOUR = "#222222"
BAND_COLOUR = "rgba(0, 114, 178, 0.12)"
FADED = 0.35
"""Opacity of what is not on the front."""


def colour_of(path: str) -> str:
    """Of a recipe's ``path``."""
    return COLOURS.get(path, SEVERAL)


def symbol_of(path: str) -> str:
    """Of a recipe's ``path``, in Plotly's words."""
    return SYMBOLS.get(path, "star")


def paths_in_order(paths: Iterable[str]) -> list[str]:
    """The different paths: those of one term as charts have always shown them, then the others."""
    found = set(paths)
    return [path for path in COLOURS if path in found] + sorted(found - COLOURS.keys())
