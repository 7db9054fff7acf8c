"""From which finished student a recipe's student inherits, where a study says ``start: inherit``."""

from __future__ import annotations

from collections.abc import Sequence

from kdsearch.config.search import SearchConfig
from kdsearch.config.student import StudentSpec, UNetSpec
from kdsearch.models.families import cost_of
from kdsearch.trials.recipe import Inherited, Recipe
from kdsearch.trials.record import Student

MOST_TIMES = 4.0
"""A donor has at most as many times the parameters; no wider ones were measured (docs/results/inheritance.md)."""
ANY_SIZE = 64
"""Pixels, for parameters alone are counted."""


def with_donor(recipe: Recipe, students: Sequence[Student], search: SearchConfig) -> Recipe:
    """The recipe begun with the weights of the best fitting student, and its epochs cut; as it is where none fits.

    A student without a teacher begins with one that had none, so that what distillation gives can still be told.
    """
    donor = None if search.start == "cold" else _best_donor(recipe, students)
    if donor is None:
        return recipe
    epochs = recipe.training.epochs
    short = recipe.training.model_copy(update={"epochs": max(1, round(search.inherited_epochs * epochs))})
    return recipe.model_copy(update={"training": short, "start": Inherited(donor=donor.number, cold_epochs=epochs)})


def _best_donor(recipe: Recipe, students: Sequence[Student]) -> Student | None:
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


def is_wider(wide: StudentSpec, narrow: StudentSpec) -> bool:
    """Whether the narrow student's weights can be cut from the wide one's: of its kind, and nowhere narrower."""
    if not isinstance(wide, UNetSpec) or not isinstance(narrow, UNetSpec) or wide.channels == narrow.channels:
        return False
    alike = all(getattr(wide, key) == getattr(narrow, key) for key in ("depth", "convolutions", "convolution"))
    return alike and all(a >= b for a, b in zip(wide.channels, narrow.channels, strict=True))
