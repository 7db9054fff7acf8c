"""From which finished student a recipe's student inherits, where a study says ``start: inherit``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdsearch.config.search import SearchConfig
from kdsearch.distill.student import Donor
from kdsearch.errors import SearchError
from kdsearch.files.home import weights_path
from kdsearch.models.families import cost_of
from kdsearch.models.inheritance import is_wider
from kdsearch.trials.recipe import Recipe, Start
from kdsearch.trials.record import Student

MOST_TIMES = 4.0
"""A donor has at most as many times the parameters; of wider ones too little is left (docs/benchmarks.md)."""
ANY_SIZE = 64
"""Pixels, for parameters alone are counted."""


def with_donor(recipe: Recipe, students: Sequence[Student], search: SearchConfig) -> Recipe:
    """The recipe begun with the weights of the best fitting student, and its epochs cut; as it is where none fits.

    A student without a teacher begins with one that had none, so that what distillation gives can still be told.
    """
    donor = _donor(recipe, students)
    if search.start == "cold" or donor is None:
        return recipe
    epochs = recipe.training.epochs
    short = recipe.training.model_copy(update={"epochs": max(1, round(search.inherited_epochs * epochs))})
    return recipe.model_copy(update={"training": short, "start": Start(donor=donor.number, cold_epochs=epochs)})


def _donor(recipe: Recipe, students: Sequence[Student]) -> Student | None:
    """Of those wide enough and not too wide, the one with the best Dice."""
    most = MOST_TIMES * cost_of(recipe.student, size=ANY_SIZE).params
    fitting = [
        student
        for student in students
        if is_wider(student.recipe.student, recipe.student)
        and (student.recipe.distillation is None) == (recipe.distillation is None)
        and student.scores.params <= most
    ]
    return max(fitting, key=lambda student: (student.scores.dice, -student.number), default=None)


def donor_of(start: Start, students: Sequence[Student], *, home: Path, study: str) -> Donor:
    """The student whose weights a trial begins with; raises SearchError where they cannot be read."""
    student = next(student for student in students if student.number == start.donor)
    path = weights_path(home, study, student.job)
    try:
        return Donor(student=student.recipe.student, weights=path.read_bytes())
    except OSError as error:
        raise SearchError(
            f"study {study} stops: a trial begins with the weights of trial {start.donor}, and {path} cannot be read: "
            f"{error.strerror or error}; restore it, or copy it from the machine that made it, and the same command "
            "resumes"
        ) from error
