"""The front as a picture, for pages that show no HTML and for print."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kdsearch.config.study import Reference, StudyConfig
from kdsearch.front.members import front_of
from kdsearch.report.style import EDGE_COLOUR, FADED, LINE_COLOUR, MARK_COLOUR, colour_of, marker_of, paths_in_order
from kdsearch.trials.record import Student
from kdsearch.trials.scores import Scores


def front_picture(
    study: StudyConfig, *, students: Sequence[Student], front: Sequence[Student], teacher: Scores | None
) -> bytes:
    """PNG with Dice against parameters of all students, the front's among them outlined."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = front_of(students, ("dice", "params"))
    sizes, dice = _points(steps)
    axes.step(sizes, dice, where="post", color=LINE_COLOUR, linewidth=1, linestyle=":", label="best Dice for the size")
    members = {student.number for student in front}
    for path in paths_in_order(student.recipe.path for student in students):
        made = [student for student in students if student.recipe.path == path]
        for on_front in (False, True):
            sizes, dice = _points([student for student in made if (student.number in members) == on_front])
            axes.scatter(
                sizes,
                dice,
                color=colour_of(path),
                marker=marker_of(path),
                s=48,
                alpha=1.0 if on_front else FADED,
                edgecolors=EDGE_COLOUR if on_front else "none",
                linewidths=1.2,
                label=path if on_front else None,
            )
    _add_marks(axes, study.references, teacher)
    axes.set_xscale("log")
    axes.set_xlabel("parameters")
    axes.set_ylabel("Dice on the validation split, %")
    axes.set_title(
        f"Study {study.name}: {len(front)} of {len(students)} students are on the front", loc="left", parse_math=False
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="distillation path", loc="lower right", fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def _add_marks(axes: Axes, references: Sequence[Reference], teacher: Scores | None) -> None:
    marks = list(references)
    marks += (
        [Reference(label="teacher", dice=teacher.dice, params=teacher.params)] if teacher and teacher.dice > 0 else []
    )
    for mark in marks:
        axes.scatter([mark.params], [100 * mark.dice], color=MARK_COLOUR, marker="x", s=60)
        axes.annotate(
            mark.label,
            (mark.params, 100 * mark.dice),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            parse_math=False,
        )


def _points(students: Sequence[Student]) -> tuple[list[float], list[float]]:
    return [student.scores.params for student in students], [100 * student.scores.dice for student in students]
