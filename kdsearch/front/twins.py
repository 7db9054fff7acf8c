"""Pairs a distilled student with its plain twin."""

from __future__ import annotations

from collections.abc import Sequence

from kdsearch.distill.record import Student


def twin_of(student: Student, students: Sequence[Student]) -> Student | None:
    """The student of the same network and training that was not distilled; None where there is none, or for itself."""
    if student.recipe.distillation is None:
        return None
    wanted = (student.recipe.student, student.recipe.training)
    twins = (other for other in students if other.recipe.distillation is None)
    return next((twin for twin in twins if (twin.recipe.student, twin.recipe.training) == wanted), None)
