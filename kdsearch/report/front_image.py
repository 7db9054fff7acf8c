"""The front as a PNG, for a README or a slide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from kdsearch.config.quantity import format_quantity
from kdsearch.config.study import StudyConfig
from kdsearch.front.dominance import front_of
from kdsearch.report.words import best_by_size
from kdsearch.trials.record import Student
from kdsearch.trials.scores import Scores

INK, PALE, STUDENT, TEACHER = "#222222", "#b8b8b8", "#0072b2", "#d55e00"
"""Color-blind readers can distinguish blue and vermilion (Okabe and Ito 2008)."""
INCHES, DOTS_PER_INCH = (9.0, 5.0), 200
"""Sharp at 900 pixels of width on a screen with two physical pixels per pixel."""
LABEL_WIDTH = 0.14
"""Of a label, as a fraction of the chart's width."""


def write_front_image(path: Path, study: StudyConfig, *, students: Sequence[Student], teacher: Scores | None) -> None:
    """Draws Dice against parameters: all students pale, the front as a step line, stars for the best of each size."""
    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.add_subplot()
    steps = front_of(students, ("dice", "params"))
    axes.scatter(*_points(students), s=26, color=PALE, linewidths=0, label="students", zorder=2)
    axes.step(*_points(steps), where="post", color=STUDENT, linewidth=1.5, label="best Dice up to this size", zorder=3)
    best = [student for _, student in best_by_size(steps)]
    axes.scatter(*_points(best), s=150, marker="*", color=STUDENT, label="best of its size class", zorder=4)
    drawn = [student.scores for student in students]
    if teacher is not None and teacher.params:
        axes.scatter(teacher.params, 100 * teacher.dice, s=260, marker="*", color=TEACHER, zorder=4)
        _label(axes, teacher, name="teacher")
        drawn.append(teacher)
    for scores, below in _placed([student.scores for student in best], teacher, decades=_decades(drawn)):
        _label(axes, scores, below=below)
    _finish(axes, study.name, empty=not drawn)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    figure.savefig(path, dpi=DOTS_PER_INCH, format="png")


def _points(students: Sequence[Student]) -> tuple[list[int], list[float]]:
    return [one.scores.params for one in students], [100 * one.scores.dice for one in students]


def _decades(drawn: Sequence[Scores]) -> float:
    """Width of the chart in powers of ten."""
    sizes = [math.log10(scores.params) for scores in drawn]
    return max(sizes, default=0.0) - min(sizes, default=0.0)


def _placed(best: Sequence[Scores], teacher: Scores | None, *, decades: float) -> list[tuple[Scores, bool]]:
    """Whether each label goes below its star, because it would cover the teacher's or the previous label above."""

    def is_near(one: Scores, other: Scores) -> bool:
        return abs(math.log10(one.params / other.params)) < LABEL_WIDTH * decades

    found: list[tuple[Scores, bool]] = []
    for scores in best:
        covers_last = bool(found) and is_near(scores, found[-1][0]) and not found[-1][1]
        covers_teacher = teacher is not None and bool(teacher.params) and is_near(scores, teacher)
        found.append((scores, covers_last or covers_teacher))
    return found


def _label(axes: Axes, scores: Scores, *, name: str = "", below: bool = False) -> None:
    """Dice and size: above a teacher, above and to the left of a student, where the front leaves room."""
    lines = [*([name] if name else []), f"{100 * scores.dice:.1f} %", f"{format_quantity(scores.params)} params"]
    axes.annotate(
        "\n".join(lines),
        (scores.params, 100 * scores.dice),
        xytext=(0 if name else 4, -9 if below else 9),
        textcoords="offset points",
        ha="center" if name else "right",
        va="top" if below else "bottom",
        fontsize=9.5,
        color=INK,
        linespacing=1.15,
        bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        zorder=5,
    )


def _finish(axes: Axes, name: str, *, empty: bool) -> None:
    axes.margins(x=0.08, y=0.2)
    axes.set_xscale("log")
    if empty:
        axes.set_xlim(1e3, 1e6)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_quantity(value)))
    axes.set_xlabel("parameters", fontsize=11, color=INK)
    axes.set_ylabel("Dice on the validation images, %", fontsize=11, color=INK)
    axes.set_title(f"Study {name}", loc="left", fontsize=13, color=INK)
    axes.grid(which="major", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
