"""Colours and marks that all charts share; told apart in print and by colour-blind readers (Okabe and Ito 2008)."""

from __future__ import annotations

COLOURS = {
    "none": "#7f7f7f",
    "logits": "#0072b2",
    "hidden": "#e69f00",
    "attention": "#d55e00",
    "regressor": "#009e73",
}
"""By distillation path."""
SYMBOLS = {
    "none": "triangle-up",
    "logits": "circle",
    "hidden": "square",
    "attention": "cross",
    "regressor": "diamond",
}
"""By distillation path, in Plotly's words."""
MARKERS = {"none": "^", "logits": "o", "hidden": "s", "attention": "P", "regressor": "D"}
"""The same in Matplotlib's."""
MARK_COLOUR = "#a05195"
"""Of the teacher and of published points."""
LINE_COLOUR = "#333333"
EDGE_COLOUR = "#222222"
FADED = 0.35
"""Opacity of what is not on the front."""
