"""The front as an interactive chart: one HTML page that opens with no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import plotly.graph_objects as go

from kdsearch.config.quantity import format_quantity
from kdsearch.config.study import StudyConfig
from kdsearch.front.dominance import front_of
from kdsearch.report.style import (
    BAND_COLOUR,
    EDGE_COLOUR,
    FADED,
    LINE_COLOUR,
    MARK_COLOUR,
    colour_of,
    paths_in_order,
    symbol_of,
)
from kdsearch.statistics.selection import NOTHING_KNOWN, Standing, Standings
from kdsearch.trials.record import Student
from kdsearch.trials.scores import Scores

SUBTITLE = "Outlined: the front of all objectives, paler if less stable under resampling. Size: multiply-adds."


def front_page(
    study: StudyConfig,
    *,
    students: Sequence[Student],
    front: Sequence[Student],
    teacher: Scores | None,
    standings: Standings = NOTHING_KNOWN,
) -> str:
    """HTML with Dice against parameters of all students, the front's among them outlined."""
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
    """The chart of ``front_page``; members of the front are paler if resampled images often drop them."""
    figure = go.Figure()
    steps = front_of(students, ("dice", "params"))
    _add_band(figure, steps, standings)
    figure.add_scatter(
        x=[student.scores.params for student in steps],
        y=[100 * student.scores.dice for student in steps],
        mode="lines",
        line={"color": LINE_COLOUR, "width": 1, "dash": "dot", "shape": "hv"},
        name="best Dice for the size",
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
        yaxis={"title": "Dice on the validation split, %"},
        legend={"title": "distillation path"},
        hoverlabel={"align": "left"},
    )
    return figure


def _add_band(figure: go.Figure, steps: Sequence[Student], standings: Standings) -> None:
    """Where the best Dice for the size lies on other images: the corrected intervals, which do not fall with size."""
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
            fillcolor=BAND_COLOUR,
            name="best for the size on other images, 95 %",
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
            "color": colour_of(path),
            "symbol": symbol_of(path),
            "size": [_size(student.scores.macs) for student in students],
            "opacity": [_opacity(student, members, standings) for student in students],
            "line": {"width": [2 if student.number in members else 0 for student in students], "color": EDGE_COLOUR},
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
        marker={"symbol": symbol, "size": 12, "color": MARK_COLOUR, "line": {"width": 2, "color": MARK_COLOUR}},
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
    """Marker diameter in pixels: grows with the logarithm of the multiply-adds."""
    return 6 + 3 * max(0.0, math.log10(macs) - 6)


def _hover(student: Student, standing: Standing | None, *, on_front: bool) -> str:
    sure = (
        ""
        if standing is None
        else (f"<br>corrected {standing.corrected} %; on the front in {100 * standing.stability:.0f} % of resamples")
    )
    head = f"<b>trial {student.number}</b>{' · on the front' if on_front else ''}"
    recipe = "<br>".join(
        f"{key}: {value}" for key, value in student.recipe.settings().items() if "augmentation" not in key
    )
    return f"{head}<br>{student.scores.headline()}{sure}<br>{recipe}"
