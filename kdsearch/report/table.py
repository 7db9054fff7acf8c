"""Students as tables: for the terminal, as Markdown, for LaTeX, as JSON, as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from statistics import fmean, pstdev

from rich.table import Table

from kdsearch.config.quantity import format_quantity
from kdsearch.distill.record import Student

HEAD = ("trial", "Dice %", "±", "params", "MACs", "path", "student")
"""± is the standard deviation over images; a student is width×depth, then how many convolutions of which kind."""
PATHS_HEAD = ("path", "students", "Dice %, mean", "± over students", "best")


def front_table(students: Sequence[Student]) -> Table:
    """The students with what a person compares them by: Dice and its standard deviation over images, both in %.

    A student is width×depth, then how many convolutions of which kind a stage has.
    """
    table = Table(title="Front: no other student is better, smaller and cheaper at once", title_justify="left")
    for name in HEAD:
        table.add_column(name, justify="left" if name in ("path", "student") else "right", no_wrap=True)
    for student in students:
        table.add_row(*row_cells(student))
    return table


def row_cells(student: Student) -> tuple[str, ...]:
    """A student's row under ``HEAD``."""
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
    return _markdown(HEAD, [row_cells(student) for student in students])


def front_latex(students: Sequence[Student]) -> str:
    """The same table for LaTeX, with booktabs."""
    return _latex(HEAD, [row_cells(student) for student in students])


def paths_markdown(students: Sequence[Student]) -> str:
    """Dice by distillation path in Markdown."""
    return _markdown(PATHS_HEAD, _path_rows(students))


def paths_latex(students: Sequence[Student]) -> str:
    """Dice by distillation path for LaTeX."""
    return _latex(PATHS_HEAD, _path_rows(students))


def _path_rows(students: Sequence[Student]) -> list[tuple[str, ...]]:
    """Mean and standard deviation over students, and the best of each path."""
    rows: list[tuple[str, ...]] = []
    for path in sorted({student.recipe.path for student in students}):
        dice = [100 * student.scores.dice for student in students if student.recipe.path == path]
        rows.append((path, str(len(dice)), f"{fmean(dice):.1f}", f"{pstdev(dice):.1f}", f"{max(dice):.1f}"))
    return rows


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _latex(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    body = [f"{' & '.join(_escaped(cell) for cell in cells)} \\\\" for cells in (head, *rows)]
    columns = "r" * len(head)
    lines = [
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        body[0],
        "\\midrule",
        *body[1:],
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    for plain, written in (("%", r"\%"), ("_", r"\_"), ("±", r"$\pm$"), ("×", r"$\times$")):
        text = text.replace(plain, written)
    return text


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
