"""Students as tables: for the terminal, as Markdown, for LaTeX, as JSON, as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from statistics import fmean, pstdev

from rich.box import SIMPLE_HEAD
from rich.table import Table

from kdsearch.config.networks import SUMMARIES
from kdsearch.config.quantity import format_quantity
from kdsearch.markdown import markdown_table
from kdsearch.statistics.selection import NOTHING_KNOWN, Standings, standing_metrics
from kdsearch.trials.record import Student

PATHS_HEAD = ("path", "students", "Dice %, mean", "± over students", "best")

LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"$<$", ">": r"$>$", "|": r"$|$", "±": r"$\pm$", "×": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$"}
)
"""How LaTeX writes what it would take for commands, or has no letter for."""

WHAT_STANDS = (
    "corr.: the Dice to expect on other images of the best student no larger, corrected for choosing by these; "
    "stable: in how many resamples of the validation images nothing beats it, which is no probability"
)


INHERITED = "from: the trial whose weights it was cut from, and the epochs trained before, by that one and its donors"
"""What stands behind a student that inherited."""


def front_table(students: Sequence[Student], standings: Standings = NOTHING_KNOWN, *, part: str = "") -> Table:
    """The students with what a person compares them by: Dice in %, corrected and as it was measured.

    ``part`` ends the title.
    """
    head, *rows = front_cells(students, standings)
    caption = what_stands(students, standings)
    title = f"Front: no other student is better, smaller and cheaper at once{part}"
    table = Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,  # so that it fits eighty columns
    )
    for name in head:
        words = name in ("path", "student")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "student", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def what_stands(students: Sequence[Student], standings: Standings = NOTHING_KNOWN) -> str:
    """What the columns mean that do not explain themselves."""
    families = dict.fromkeys(SUMMARIES[student.recipe.student.family] for student in students)
    inherited = [INHERITED] if any(student.recipe.start is not None for student in students) else []
    return "; ".join([*([WHAT_STANDS] if standings else []), *families, *inherited])


def front_cells(students: Sequence[Student], standings: Standings = NOTHING_KNOWN) -> list[tuple[str, ...]]:
    """Head and a row a student; ``ms`` is there where the study measured latency.

    If standings are known, the corrected Dice and the stability under resampling follow the Dice; otherwise ±, its
    standard deviation over images.
    """
    timed = any(student.scores.latency_ms is not None for student in students)
    sure = ("corr. %", "stable") if standings else ("±",)
    head = ("trial", "Dice %", *sure, "params", "MACs", *(["ms"] if timed else []), "path", "student")
    return [head, *(_row(student, standings, timed=timed) for student in students)]


def _row(student: Student, standings: Standings, *, timed: bool) -> tuple[str, ...]:
    scores, spec, distillation = student.scores, student.recipe.student, student.recipe.distillation
    latency = f"{scores.latency_ms:.2f}" if scores.latency_ms is not None else ""
    start = student.recipe.start
    sure: tuple[str, ...] = (f"{100 * scores.overlap.dice_std:.1f}",)
    if standings:
        standing = standings[student.number]
        sure = (f"{100 * standing.corrected.dice:.1f}", f"{100 * standing.stability:.0f} %")
    return (
        str(student.number),
        f"{100 * scores.dice:.1f}",
        *sure,
        format_quantity(scores.params),
        format_quantity(scores.macs),
        *([latency] if timed else []),
        distillation.summary() if distillation else "none",
        f"{spec.summary()}{'' if start is None else f', from {start.donor} (+{student.donor_epochs} epochs)'}",
    )


def front_markdown(students: Sequence[Student], standings: Standings = NOTHING_KNOWN) -> str:
    """The same table in Markdown."""
    head, *rows = front_cells(students, standings)
    return markdown_table(head, rows)


def front_latex(students: Sequence[Student], standings: Standings = NOTHING_KNOWN) -> str:
    """The same table for LaTeX, with booktabs."""
    head, *rows = front_cells(students, standings)
    return latex_table(head, rows)


def paths_markdown(students: Sequence[Student]) -> str:
    """Dice by distillation path in Markdown."""
    return markdown_table(PATHS_HEAD, _path_rows(students))


def paths_latex(students: Sequence[Student]) -> str:
    """Dice by distillation path for LaTeX."""
    return latex_table(PATHS_HEAD, _path_rows(students))


def _path_rows(students: Sequence[Student]) -> list[tuple[str, ...]]:
    """Mean and standard deviation over students, and the best of each path."""
    rows: list[tuple[str, ...]] = []
    for path in sorted({student.recipe.path for student in students}):
        dice = [100 * student.scores.dice for student in students if student.recipe.path == path]
        rows.append((path, str(len(dice)), f"{fmean(dice):.1f}", f"{pstdev(dice):.1f}", f"{max(dice):.1f}"))
    return rows


def latex_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for LaTeX, with booktabs."""
    body = [f"{' & '.join(latex_text(cell) for cell in cells)} \\\\" for cells in (head, *rows)]
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


def latex_text(text: str) -> str:
    """The text as LaTeX shows it, whatever characters it holds."""
    return text.translate(LATEX)


def front_json(students: Sequence[Student], standings: Standings = NOTHING_KNOWN) -> str:
    """The students with every score and setting, and how they stand where that is known."""
    rows = [
        {
            "trial": student.number,
            "scores": student.scores.metrics() | student.cost_with_donors(),
            "standing": standing_metrics(standings, student.number),
            "counted_by": [count.describe() for count in student.scores.tool_counts],
            "recipe": student.recipe.model_dump(mode="json"),
        }
        for student in students
    ]
    return json.dumps(rows, indent=2)


def front_csv(students: Sequence[Student], standings: Standings = NOTHING_KNOWN) -> str:
    """One row a student: every score, then every setting; a setting without meaning for a student stays empty."""
    rows = [
        {
            "trial": student.number,
            **student.scores.metrics(),
            **student.cost_with_donors(),
            **standing_metrics(standings, student.number),
            **student.recipe.settings(),
        }
        for student in students
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
