"""Students as tables for the terminal, Markdown, LaTeX, JSON and CSV, and the study's page in MLflow."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from rich.box import SIMPLE_HEAD
from rich.table import Table

from kdsearch.config.quantity import format_quantity
from kdsearch.config.search import Objective
from kdsearch.config.space import dimensions
from kdsearch.config.study import StudyConfig
from kdsearch.config.task import Task
from kdsearch.data.dataset import DataSummary
from kdsearch.front.dominance import front_of
from kdsearch.markdown import markdown_table
from kdsearch.report.words import (
    SIZES,
    best_by_size,
    distillation_words,
    inheritance_words,
    layers_words,
    student_words,
    teacher_words,
)
from kdsearch.statistics.selection import NOTHING_KNOWN, Standings, standing_metrics
from kdsearch.trials.record import Student
from kdsearch.trials.scores import Scores

PATHS_HEAD = ("path", "students", "Dice %, mean", "± over students", "best")
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"$<$", ">": r"$>$", "|": r"$|$", "±": r"$\pm$", "×": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$"}
)
"""How LaTeX writes characters that are commands to it, or that its fonts lack."""
STAR = f"★ best Dice up to {', '.join(format_quantity(size) for size in SIZES)} parameters, or of all"
OPTIMISTIC = "Dice is optimistic: the validation images it is measured on also chose these students."
STANDING = (
    "expected: Dice on new images to expect from the best student up to this size, corrected for selection bias; "
    "stable: how often the student stays on the front when the validation images are resampled"
)
WIDE = 100
"""Columns of a terminal that shows what ``STANDING`` explains."""
MOST_ROWS = 40
"""Of the front in MLflow, which keeps at most eight thousand characters."""
SCORES = (
    "Scores are measured on the validation images, which also chose the students. `front.html` shows the front, "
    "`study.yaml` is what ran; the runs of students on the front have weights and overlays."
)
PICK = "Pick a student: `kdsearch pick STUDY.yaml --params 100k`, `--smallest-within 0.01` or `--knee`."
Rows = list[tuple[str, ...]]
"""The head, then the rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontTable:
    """A front as a terminal shows it."""

    members: tuple[Student, ...]
    """Smallest first."""
    students: int
    """How many students the study has."""
    objectives: Sequence[Objective]
    teacher: Scores | None
    standings: Standings
    title_end: str = ""

    def render(self, *, width: int, everything: bool = False) -> Table:
        """For a terminal of so many columns; without ``everything``, only the members that ``competitive`` keeps."""
        shown = self.members if everything else competitive(self.members, self.objectives)
        standings = self.standings if width >= WIDE else NOTHING_KNOWN
        head, *rows = self._cells(shown, standings)
        notes = [STAR, STANDING if standings else OPTIMISTIC, *_unlisted(len(self.members) - len(shown))]
        table = Table(
            title=f"Pareto front: {len(self.members)} of {self.students} students{self.title_end}",
            title_justify="left",
            caption="\n".join(notes),
            caption_justify="left",
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            collapse_padding=True,
        )
        for name in head:
            words = name in WORDS
            table.add_column(name, justify="left" if words else "right", no_wrap=not words)
        for row in rows:
            table.add_row(*row)
        return table

    def _cells(self, shown: Sequence[Student], standings: Standings) -> Rows:
        """Brief words, stars, and the teacher in the last row."""
        starred = {student.number for _, student in best_by_size(shown)}
        timed = any(student.scores.latency_ms is not None for student in shown)
        known = ("expected", "stable") if standings else ()
        head = ("trial", "Dice %", *known, "params", "MACs", *(["ms"] if timed else []), *WORDS)
        rows = []
        for student in shown:
            scores, star = student.scores, "★ " if student.number in starred else ""
            dice = f"{star}{100 * scores.dice:.1f}"
            figures = (*_standing(standings, student), *_cost(scores, timed=timed))
            rows.append((str(student.number), dice, *figures, *_words(student, brief=True)))
        if self.teacher is not None:
            cost, blank = _cost(self.teacher, timed=timed), ("",) * len(known)
            rows.append(("", f"{100 * self.teacher.dice:.1f}", *blank, *cost, "teacher", ""))
        return [head, *rows]


WORDS = ("student", "distilled by")
"""Columns of words; all others hold numbers."""


def competitive(members: Sequence[Student], objectives: Sequence[Objective]) -> tuple[Student, ...]:
    """The members with the best Dice up to some number of parameters or multiply-adds, or for another objective.

    Every other member has a lower Dice than a smaller member and than a cheaper one.
    """
    costs: list[Objective] = list(dict.fromkeys(("params", "macs", *objectives)))
    kept = {member.number for cost in costs if cost != "dice" for member in front_of(members, ("dice", cost))}
    return tuple(member for member in members if member.number in kept)


def _unlisted(count: int) -> list[str]:
    if not count:
        return []
    start, them = ("1 member is", "it") if count == 1 else (f"{count} members are", "them")
    return [f"{start} not listed: a smaller and a cheaper student have a higher Dice (--all lists {them})."]


def front_cells(students: Sequence[Student], standings: Standings = NOTHING_KNOWN, *, brief: bool = False) -> Rows:
    """For documents; ``ms`` is there if the study measured latency.

    If standings are known, the expected Dice and the stability follow the Dice; otherwise its standard deviation over
    images does. ``brief`` leaves these out, and the number and kind of convolutions.
    """
    timed = any(student.scores.latency_ms is not None for student in students)
    known: tuple[str, ...] = () if brief else ("expected %", "stable") if standings else ("±",)
    head = ("trial", "Dice %", *known, "params", "MACs", *(["ms"] if timed else []), *WORDS)
    rows: Rows = [head]
    for student in students:
        trust = _standing(standings, student) or (f"{100 * student.scores.overlap.dice_std:.1f}",)
        figures = (f"{100 * student.scores.dice:.1f}", *(() if brief else trust), *_cost(student.scores, timed=timed))
        rows.append((str(student.number), *figures, *_words(student, brief=brief)))
    return rows


def _standing(standings: Standings, student: Student) -> tuple[str, ...]:
    if not standings:
        return ()
    standing = standings[student.number]
    return f"{100 * standing.corrected.dice:.1f}", f"{100 * standing.stability:.0f} %"


def _cost(scores: Scores, *, timed: bool) -> tuple[str, ...]:
    """Parameters and multiply-adds, empty if unknown, and latency if the study measured it."""
    sizes = tuple(format_quantity(count) if count else "" for count in (scores.params, scores.macs))
    latency = "" if scores.latency_ms is None else f"{scores.latency_ms:.2f}"
    return (*sizes, latency) if timed else sizes


def _words(student: Student, *, brief: bool = False) -> tuple[str, str]:
    spec = student.recipe.student
    layers = "" if brief else f", {layers_words(spec)}"
    return (
        f"{student_words(spec)}{layers}{inheritance_words(student)}",
        distillation_words(student.recipe.distillation),
    )


def front_markdown(students: Sequence[Student], standings: Standings = NOTHING_KNOWN) -> str:
    """The front in Markdown."""
    head, *rows = front_cells(students, standings)
    return markdown_table(head, rows)


def front_latex(students: Sequence[Student], standings: Standings = NOTHING_KNOWN) -> str:
    """The front for LaTeX, with booktabs."""
    head, *rows = front_cells(students, standings)
    return latex_table(head, rows)


def class_cells(students: Sequence[Student]) -> Rows:
    """Dice of each class, and the mean IoU; empty for students of one class."""
    known = [student for student in students if student.scores.overlap.classes]
    if not known:
        return []
    rows: Rows = [("trial", *(f"{one.name} %" for one in known[0].scores.overlap.classes), "mean IoU %")]
    for student in known:
        overlap = student.scores.overlap
        dice = (f"{100 * one.dice:.1f}" if one.images else "" for one in overlap.classes)
        rows.append((str(student.number), *dice, "" if overlap.miou is None else f"{100 * overlap.miou:.1f}"))
    return rows


def paths_markdown(students: Sequence[Student]) -> str:
    """Dice by distillation path in Markdown."""
    return markdown_table(PATHS_HEAD, _path_rows(students))


def paths_latex(students: Sequence[Student]) -> str:
    """Dice by distillation path for LaTeX."""
    return latex_table(PATHS_HEAD, _path_rows(students))


def _path_rows(students: Sequence[Student]) -> Rows:
    """Mean and standard deviation over students, and the best of each path."""
    rows: Rows = []
    for path in sorted({student.recipe.path for student in students}):
        dice = [100 * student.scores.dice for student in students if student.recipe.path == path]
        rows.append((path, str(len(dice)), f"{fmean(dice):.1f}", f"{pstdev(dice):.1f}", f"{max(dice):.1f}"))
    return rows


def latex_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for LaTeX, with booktabs."""
    names, *body = (f"{' & '.join(map(latex_text, cells))} \\\\" for cells in (head, *rows))
    start = f"\\begin{{tabular}}{{{'r' * len(head)}}}"
    return "\n".join([start, "\\toprule", names, "\\midrule", *body, "\\bottomrule", "\\end{tabular}"])


def latex_text(text: str) -> str:
    """The text with its special characters escaped for LaTeX."""
    return text.translate(LATEX)


def front_json(students: Sequence[Student], standings: Standings = NOTHING_KNOWN) -> str:
    """The students with every score, every setting and, if known, how they stand."""
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
    """One row per student: every score, then every setting, empty if it does not apply to the student."""
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


def study_note(
    study: StudyConfig,
    *,
    data: DataSummary | None,
    teacher: Scores | None,
    members: Sequence[Student],
    students: int,
    standings: Standings = NOTHING_KNOWN,
) -> str:
    """For MLflow, in Markdown: what was searched, on which images, the front, and how to pick."""
    search, unlisted = study.search, len(members) - MOST_ROWS
    searched = ", ".join(f"`{name}`" for name in dimensions(study)) or "nothing"
    paragraphs = (
        f"# {study.name}",
        f"{search.trials} trials ({search.sampler}) for {', '.join(search.objectives)}; searched: {searched}.",
        f"Data: {describe_data(data, study.data.task)}" if data else "",
        f"Warning: {data.caution}." if data and data.caution else "",
        f"Teacher: {teacher_words(study.teacher)}: {teacher.headline()}." if teacher else "",
        f"## Pareto front: {len(members)} of {students} finished students",
        front_markdown(members[:MOST_ROWS], standings),
        f"and {unlisted} larger ones, in `front.html`." if unlisted > 0 else "",
        f"{STANDING}." if standings else "",
        SCORES,
        PICK,
    )
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def describe_data(data: DataSummary, task: Task) -> str:
    """Sources, images and how they are split, in a sentence."""
    unlabelled = f"; {data.unlabelled} more without masks, for distillation only" if data.unlabelled else ""
    return (
        f"{', '.join(data.sources)}: {data.images} images at {task.describe_size()}, {data.train} for training, "
        f"{data.validation} for validation, {data.test} locked for testing{unlabelled}."
    )
