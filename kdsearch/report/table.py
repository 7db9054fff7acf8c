"""Students as tables: for the terminal, as Markdown, as JSON, as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from rich.table import Table

from kdsearch.config.quantity import format_quantity
from kdsearch.distill.record import Student


def front_table(students: Sequence[Student]) -> Table:
    """The students with what a person compares them by: Dice and its standard deviation over images, both in %.

    A student is width×depth, then how many convolutions of which kind a stage has.
    """
    table = Table(title="Front: no other student is better, smaller and cheaper at once", title_justify="left")
    for name in ("trial", "Dice %", "±", "params", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("path", "student"):
        table.add_column(name, no_wrap=True)
    for student in students:
        table.add_row(*_cells(student))
    return table


def _cells(student: Student) -> tuple[str, ...]:
    scores, spec, distillation = student.scores, student.recipe.student, student.recipe.distillation
    path = f"{distillation.path} {distillation.loss}" if distillation else "none"
    return (
        str(student.number),
        f"{100 * scores.dice:.1f}",
        f"{100 * scores.overlap.dice_std:.1f}",
        format_quantity(scores.params),
        format_quantity(scores.macs),
        path,
        f"{spec.width}×{spec.depth}, {spec.convolutions} {spec.convolution}",
    )


def front_markdown(students: Sequence[Student]) -> str:
    """The same table in Markdown."""
    lines = ["| trial | Dice % | ± over images | params | MACs | path | student |", "|---|---|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(student))} |" for student in students)])


def front_json(students: Sequence[Student]) -> str:
    """The students with every score and setting."""
    rows = [
        {
            "trial": student.number,
            "scores": student.scores.metrics(),
            "counted_by": [count.describe() for count in student.scores.tool_counts],
            "recipe": student.recipe.model_dump(mode="json"),
        }
        for student in students
    ]
    return json.dumps(rows, indent=2)


def front_csv(students: Sequence[Student]) -> str:
    """One row a student: every score, then every setting; a setting without meaning for a student stays empty."""
    rows = [{"trial": student.number, **student.scores.metrics(), **student.recipe.settings()} for student in students]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
