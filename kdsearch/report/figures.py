"""The report's charts, beside that of the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from kdsearch.report.progress import Step
from kdsearch.report.style import (
    COLOURS,
    EDGE_COLOUR,
    FADED,
    LINE_COLOUR,
    MARK_COLOUR,
    colour_of,
    paths_in_order,
    symbol_of,
)
from kdsearch.statistics.confirmation import Confirmation
from kdsearch.trials.record import Student, TrialRecord

SIZES = (("up to 10k", 10_000), ("up to 100k", 100_000), ("up to 1M", 1_000_000), ("over 1M", float("inf")))
"""Size classes by parameters."""
ROLES = {
    "member": ("member", "circle"),
    "twin": ("its twin, not distilled", "circle-open"),
    "undistilled": ("best undistilled student of the size", "triangle-up"),
    "teacher": ("teacher", "star"),
}
"""Name and mark of what was confirmed."""
SHIFTED = 1.06
"""By which a twin is drawn beside its member, so that both intervals are seen."""


def curves_figure(records: Sequence[TrialRecord], members: set[int]) -> go.Figure:
    """Dice by epoch: the front's members in their path's colour, stopped trials to where they were stopped."""
    figure = go.Figure()
    named: set[str] = set()
    for record in records:
        if record.recipe is None or not record.curve or (record.number not in members and record.outcome != "stopped"):
            continue
        stopped = record.outcome == "stopped"
        group = "stopped" if stopped else record.recipe.path
        epochs = [report.epoch for report in record.curve]
        dice = [100 * report.dice for report in record.curve]
        colour = LINE_COLOUR if stopped else colour_of(record.recipe.path)
        figure.add_scatter(
            x=epochs,
            y=dice,
            mode="lines",
            line={"color": colour, "width": 1 if stopped else 2, "dash": "dot" if stopped else "solid"},
            opacity=FADED if stopped else 1.0,
            name=group,
            legendgroup=group,
            hovertemplate=f"trial {record.number} ({record.recipe.path})<br>epoch %{{x}}: %{{y:.1f}} %<extra></extra>",
            showlegend=group not in named,
        )
        named.add(group)
        if stopped:
            figure.add_scatter(
                x=epochs[-1:],
                y=dice[-1:],
                mode="markers",
                marker={"symbol": "x", "size": 8, "color": MARK_COLOUR},
                hovertemplate=f"trial {record.number}: {record.reason}<extra></extra>",
                showlegend=False,
            )
    return _finish(figure, "epoch", "Dice on the validation split, %")


def importance_figure(importances: Mapping[str, float]) -> go.Figure:
    """A bar for each searched setting."""
    rows = sorted(importances.items(), key=lambda item: item[1])
    figure = go.Figure()
    figure.add_bar(
        x=[100 * fraction for _, fraction in rows],
        y=[name for name, _ in rows],
        orientation="h",
        marker={"color": COLOURS["logits"]},
        hovertemplate="%{y}: %{x:.0f} %<extra></extra>",
    )
    return _finish(figure, "fraction of the spread of Dice that it explains, %", "")


def hypervolume_figure(steps: Sequence[Step], *, by: str) -> go.Figure:
    """The hypervolume over ``trials`` or over ``compute``."""
    figure = go.Figure()
    x = [step.trials if by == "trials" else step.compute_s / 60 for step in steps]
    figure.add_scatter(
        x=x,
        y=[step.hypervolume for step in steps],
        mode="lines+markers",
        line={"color": COLOURS["logits"], "shape": "hv"},
        marker={"size": 4},
    )
    return _finish(figure, "trials" if by == "trials" else "minutes of training, all workers together", "hypervolume")


def groups_figure(students: Sequence[Student], *, by: str) -> go.Figure:
    """Dice of all students by ``path`` or by ``size``: a box and its points."""
    groups = (
        {
            path: [s for s in students if s.recipe.path == path]
            for path in paths_in_order(student.recipe.path for student in students)
        }
        if by == "path"
        else _by_size(students)
    )
    colours, symbols = (colour_of, symbol_of) if by == "path" else (lambda _: LINE_COLOUR, lambda _: "circle")
    figure = go.Figure()
    for name, group in groups.items():
        if group:
            figure.add_box(
                y=[100 * student.scores.dice for student in group],
                name=f"{name} ({len(group)})",
                boxpoints="all",
                pointpos=0,
                jitter=0.4,
                line={"color": EDGE_COLOUR, "width": 1},
                fillcolor="rgba(0,0,0,0)",
                marker={"color": colours(name), "symbol": symbols(name), "size": 7},
                text=[f"trial {student.number}" for student in group],
                hovertemplate="%{text}: %{y:.1f} %<extra></extra>",
                showlegend=False,
            )
    return _finish(figure, "", "Dice on the validation split, %")


def _by_size(students: Sequence[Student]) -> dict[str, list[Student]]:
    groups: dict[str, list[Student]] = {name: [] for name, _ in SIZES}
    for student in students:
        groups[next(name for name, most in SIZES if student.scores.params <= most)].append(student)
    return groups


def _finish(figure: go.Figure, x: str, y: str) -> go.Figure:
    figure.update_layout(
        template="simple_white",
        height=380,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        xaxis={"title": x, "automargin": True},
        yaxis={"title": y, "automargin": True},
        hoverlabel={"align": "left"},
    )
    return figure


def confirmed_figure(found: Confirmation) -> go.Figure:
    """Confirmed Dice against parameters with 95 % intervals: members, their twins, plain students and the teacher."""
    figure = go.Figure()
    for role, (name, symbol) in ROLES.items():
        arms = [arm for arm in (*found.arms, found.teacher) if arm.role == role]
        if not arms:
            continue
        dice = [100 * arm.dice.mean for arm in arms]
        figure.add_scatter(
            x=[arm.params * (SHIFTED if role == "twin" else 1) for arm in arms],
            y=dice,
            mode="markers",
            name=name,
            text=[f"<b>{arm.name}</b><br>Dice {arm.dice} %" for arm in arms],
            hovertemplate="%{text}<extra></extra>",
            marker={"symbol": symbol, "size": 11, "color": MARK_COLOUR if role == "teacher" else LINE_COLOUR},
            error_y={
                "array": [100 * arm.dice.high - value for arm, value in zip(arms, dice, strict=True)],
                "arrayminus": [value - 100 * arm.dice.low for arm, value in zip(arms, dice, strict=True)],
                "width": 3,
                "thickness": 1,
            },
        )
    figure.update_layout(
        template="simple_white",
        xaxis={"type": "log", "title": "parameters"},
        yaxis={"title": "Dice out of fold, at the size of the files, %"},
        height=480,
    )
    return figure
