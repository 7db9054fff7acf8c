"""The report's other charts: learning curves, importances, hypervolume, groups, confirmation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from kdsearch.front.dominance import hypervolume
from kdsearch.report.charts import (
    COLORS,
    EDGE_COLOR,
    FADED,
    LINE_COLOR,
    MARK_COLOR,
    color_of,
    paths_in_order,
    symbol_of,
)
from kdsearch.report.words import SIZES, size_class, size_name
from kdsearch.statistics.confirmation import Confirmation
from kdsearch.trials.record import Student, TrialRecord

ROLES = {
    "member": ("student on the front", "circle"),
    "twin": ("its undistilled twin", "circle-open"),
    "undistilled": ("best undistilled student of its size", "triangle-up"),
    "teacher": ("teacher", "star"),
}
"""Name and symbol of each role in a confirmation."""
SHIFTED = 1.06
"""Factor by which a twin is moved to the right, so that its interval does not cover that of its student."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The hypervolume after a trial ended, and what it took to get there."""

    trials: int
    """Ended so far, without those rejected before training."""
    compute_s: float
    """Training time so far in seconds, summed over workers; includes stopped and failed trials."""
    hypervolume: float


def curves_figure(records: Sequence[TrialRecord], members: set[int]) -> go.Figure:
    """Dice by epoch of the students on the front, colored by path, and of stopped trials."""
    figure = go.Figure()
    named: set[str] = set()
    for record in records:
        if record.recipe is None or not record.curve or (record.number not in members and record.outcome != "stopped"):
            continue
        stopped = record.outcome == "stopped"
        group = "stopped" if stopped else record.recipe.path
        epochs = [report.epoch for report in record.curve]
        dice = [100 * report.dice for report in record.curve]
        color = LINE_COLOR if stopped else color_of(record.recipe.path)
        figure.add_scatter(
            x=epochs,
            y=dice,
            mode="lines",
            line={"color": color, "width": 1 if stopped else 2, "dash": "dot" if stopped else "solid"},
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
                marker={"symbol": "x", "size": 8, "color": MARK_COLOR},
                hovertemplate=f"trial {record.number}: {record.reason}<extra></extra>",
                showlegend=False,
            )
    return _finish(figure, "epoch", "Dice on the validation images, %")


def importance_figure(importances: Mapping[str, float]) -> go.Figure:
    """A bar for each searched setting."""
    rows = sorted(importances.items(), key=lambda item: item[1])
    figure = go.Figure()
    figure.add_bar(
        x=[100 * fraction for _, fraction in rows],
        y=[name for name, _ in rows],
        orientation="h",
        marker={"color": COLORS["logits"]},
        hovertemplate="%{y}: %{x:.0f} %<extra></extra>",
    )
    return _finish(figure, "share of the variance of Dice it explains, %", "")


def hypervolume_figure(steps: Sequence[Step], *, by: str) -> go.Figure:
    """The hypervolume over ``trials`` or over ``compute``."""
    figure = go.Figure()
    x = [step.trials if by == "trials" else step.compute_s / 60 for step in steps]
    figure.add_scatter(
        x=x,
        y=[step.hypervolume for step in steps],
        mode="lines+markers",
        line={"color": COLORS["logits"], "shape": "hv"},
        marker={"size": 4},
    )
    return _finish(figure, "trials" if by == "trials" else "training time summed over workers, minutes", "hypervolume")


def groups_figure(students: Sequence[Student], *, by: str) -> go.Figure:
    """Dice of all students as box plots with points, grouped by ``path`` or by ``size``."""
    groups = (
        {
            path: [s for s in students if s.recipe.path == path]
            for path in paths_in_order(student.recipe.path for student in students)
        }
        if by == "path"
        else _by_size(students)
    )
    colors, symbols = (color_of, symbol_of) if by == "path" else (lambda _: LINE_COLOR, lambda _: "circle")
    figure = go.Figure()
    for name, group in groups.items():
        if group:
            figure.add_box(
                y=[100 * student.scores.dice for student in group],
                name=f"{name} ({len(group)})",
                boxpoints="all",
                pointpos=0,
                jitter=0.4,
                line={"color": EDGE_COLOR, "width": 1},
                fillcolor="rgba(0,0,0,0)",
                marker={"color": colors(name), "symbol": symbols(name), "size": 7},
                text=[f"trial {student.number}" for student in group],
                hovertemplate="%{text}: %{y:.1f} %<extra></extra>",
                showlegend=False,
            )
    return _finish(figure, "", "Dice on the validation images, %")


def _by_size(students: Sequence[Student]) -> dict[str, list[Student]]:
    groups: dict[str, list[Student]] = {size_name(place): [] for place in range(len(SIZES) + 1)}
    for student in students:
        groups[size_name(size_class(student.scores))].append(student)
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
    """Confirmed Dice against parameters with 95 % intervals, for every network of a confirmation."""
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
            marker={"symbol": symbol, "size": 11, "color": MARK_COLOR if role == "teacher" else LINE_COLOR},
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
        yaxis={"title": "cross-validated Dice at original resolution, %"},
        height=480,
    )
    return figure


def steps_of(records: Sequence[TrialRecord], *, most_params: float) -> tuple[Step, ...]:
    """One step per trial, in the order in which they ended; see ``front.hypervolume`` for ``most_params``."""
    ended = [record for record in records if record.outcome not in ("rejected", "running")]
    ended.sort(
        key=lambda record: (record.ended is None, record.ended.timestamp() if record.ended else 0, record.number)
    )
    points: list[tuple[float, float]] = []
    compute = 0.0
    steps = []
    for index, record in enumerate(ended, start=1):
        compute += record.curve[-1].seconds if record.curve else 0.0
        if record.scores is not None:
            points.append((record.scores.params, record.scores.dice))
        steps.append(Step(trials=index, compute_s=compute, hypervolume=hypervolume(points, most_params=most_params)))
    return tuple(steps)


def reference_size(records: Sequence[TrialRecord], limit: int | None) -> float:
    """The parameters of the hypervolume's reference point: the limit, or the power of ten above the largest student."""
    if limit is not None:
        return float(limit)
    sizes = [record.scores.params for record in records if record.scores is not None]
    return float(10 ** len(str(max(sizes, default=1))))
