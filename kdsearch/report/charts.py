"""The front as an interactive chart, and the colors and symbols that all charts share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate

import plotly.graph_objects as go

from kdsearch.config.quantity import format_quantity
from kdsearch.config.study import StudyConfig
from kdsearch.front.dominance import front_of
from kdsearch.statistics.selection import NOTHING_KNOWN, Standing, Standings
from kdsearch.trials.record import Student
from kdsearch.trials.scores import Scores

COLORS = {
    "none": "#7f7f7f",
    "logits": "#0072b2",
    "hidden": "#e69f00",
    "attention": "#d55e00",
    "regressor": "#009e73",
}
"""By distillation path; readable in print and for color-blind readers (Okabe and Ito 2008)."""
SYMBOLS = {
    "none": "triangle-up",
    "logits": "circle",
    "hidden": "square",
    "attention": "cross",
    "regressor": "diamond",
}
"""By distillation path; names of Plotly."""
SEVERAL = "#cc79a7"
"""Color of several paths at once."""
MARK_COLOR = "#a05195"
"""Of the teacher and of published results."""
LINE_COLOR = "#333333"
EDGE_COLOR = "#222222"
BAND_COLOR = "rgba(0, 114, 178, 0.12)"
FADED = 0.35
"""Opacity of students that are not on the front."""
SUBTITLE = "Outlined: the Pareto front, faded if less stable under resampling. Marker size: multiply-adds (MACs)."


def front_page(
    study: StudyConfig,
    *,
    students: Sequence[Student],
    front: Sequence[Student],
    teacher: Scores | None,
    standings: Standings = NOTHING_KNOWN,
) -> str:
    """A self-contained HTML page with Dice against parameters of all students; the front is outlined."""
    figure = front_figure(study, students=students, front=front, teacher=teacher, standings=standings)
    page: str = figure.to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False})
    return page


def front_figure(
    study: StudyConfig,
    *,
    students: Sequence[Student],
    front: Sequence[Student],
    teacher: Scores | None,
    standings: Standings = NOTHING_KNOWN,
) -> go.Figure:
    """The chart of ``front_page``; members are faded if they often drop off the front in resamples."""
    figure = go.Figure()
    steps = front_of(students, ("dice", "params"))
    _add_band(figure, steps, standings)
    figure.add_scatter(
        x=[student.scores.params for student in steps],
        y=[100 * student.scores.dice for student in steps],
        mode="lines",
        line={"color": LINE_COLOR, "width": 1, "dash": "dot", "shape": "hv"},
        name="best Dice up to this size",
        hoverinfo="skip",
    )
    members = {student.number for student in front}
    for path in paths_in_order(student.recipe.path for student in students):
        _add_path(figure, path, [s for s in students if s.recipe.path == path], members=members, standings=standings)
    if teacher is not None and teacher.params:
        _add_mark(figure, "teacher", dice=teacher.dice, params=teacher.params, symbol="star")
    for point in study.reference_points:
        _add_mark(figure, point.label, dice=point.dice, params=point.params, symbol="cross-thin")
    figure.update_layout(
        title={"text": f"Study {study.name}", "subtitle": {"text": SUBTITLE}},
        template="simple_white",
        xaxis={"type": "log", "title": "parameters"},
        yaxis={"title": "Dice on the validation images, %"},
        legend={"title": "distillation path"},
        hoverlabel={"align": "left"},
    )
    return figure


def _add_band(figure: go.Figure, steps: Sequence[Student], standings: Standings) -> None:
    """The 95 % interval of the best Dice up to each size on new images, corrected for selection bias."""
    known = [(student.scores.params, standings[student.number].corrected) for student in steps if standings]
    if len(known) < 2:
        return
    sizes = [params for params, _ in known]
    lows = list(accumulate((100 * corrected.low for _, corrected in known), max))
    highs = list(accumulate((100 * corrected.high for _, corrected in known), max))
    for values, fill in ((highs, "none"), (lows, "tonexty")):
        figure.add_scatter(
            x=sizes,
            y=values,
            mode="lines",
            line={"width": 0, "shape": "hv"},
            fill=fill,
            fillcolor=BAND_COLOR,
            name="the same on new images, 95 %",
            showlegend=fill != "none",
            hoverinfo="skip",
        )


def _add_path(
    figure: go.Figure, path: str, students: Sequence[Student], *, members: set[int], standings: Standings
) -> None:
    if not students:
        return
    figure.add_scatter(
        x=[student.scores.params for student in students],
        y=[100 * student.scores.dice for student in students],
        mode="markers",
        name=path,
        text=[
            _hover(student, standings.get(student.number), on_front=student.number in members) for student in students
        ],
        hovertemplate="%{text}<extra></extra>",
        marker={
            "color": color_of(path),
            "symbol": symbol_of(path),
            "size": [_size(student.scores.macs) for student in students],
            "opacity": [_opacity(student, members, standings) for student in students],
            "line": {"width": [2 if student.number in members else 0 for student in students], "color": EDGE_COLOR},
        },
    )


def _add_mark(figure: go.Figure, label: str, *, dice: float, params: int, symbol: str) -> None:
    figures = f"Dice {100 * dice:.1f} %<br>{format_quantity(params)} parameters"
    figure.add_scatter(
        x=[params],
        y=[100 * dice],
        mode="markers+text",
        text=[label],
        textposition="top center",
        marker={"symbol": symbol, "size": 12, "color": MARK_COLOR, "line": {"width": 2, "color": MARK_COLOR}},
        hovertemplate=f"{label}<br>{figures}<extra></extra>",
        showlegend=False,
        cliponaxis=False,
    )


def _opacity(student: Student, members: set[int], standings: Standings) -> float:
    if student.number not in members:
        return FADED
    standing = standings.get(student.number)
    return FADED + (1 - FADED) * (1.0 if standing is None else standing.stability)


def _size(macs: int) -> float:
    """Marker diameter in pixels, which grows with the logarithm of the multiply-adds."""
    return 6 + 3 * max(0.0, math.log10(macs) - 6)


def _hover(student: Student, standing: Standing | None, *, on_front: bool) -> str:
    trust = (
        ""
        if standing is None
        else (
            f"<br>expected on new images {standing.corrected} %"
            f"<br>on the front in {100 * standing.stability:.0f} % of resamples"
        )
    )
    head = f"<b>trial {student.number}</b>{' · on the front' if on_front else ''}"
    recipe = "<br>".join(
        f"{key}: {value}" for key, value in student.recipe.settings().items() if "augmentation" not in key
    )
    return f"{head}<br>{student.scores.headline()}{trust}<br>{recipe}"


def color_of(path: str) -> str:
    """The color of a distillation path."""
    return COLORS.get(path, SEVERAL)


def symbol_of(path: str) -> str:
    """The symbol of a distillation path; a name of Plotly."""
    return SYMBOLS.get(path, "star")


def paths_in_order(paths: Iterable[str]) -> list[str]:
    """The different paths: single ones in the order of ``COLORS``, then combined ones by name."""
    found = set(paths)
    return [path for path in COLORS if path in found] + sorted(found - COLORS.keys())
