"""Students that a study may confirm."""

from __future__ import annotations

import dataclasses

from tests.front.students import student as made


def distilled(number, dice, params, *, path="logits"):
    """Each of another width, so that no two recipes are the same."""
    one = made(number, dice, params, path=path)
    spec = one.recipe.student.model_copy(update={"width": 2 + number})
    return dataclasses.replace(one, recipe=one.recipe.model_copy(update={"student": spec}))


def student(number, dice, params):
    return distilled(number, dice, params, path="none")
