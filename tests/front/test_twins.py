"""Plain twins."""

from __future__ import annotations

import dataclasses

from kdsearch.front.twins import twin_of
from tests.front.students import student


def test_twin_is_the_same_network_and_training_without_distillation():
    distilled, plain = student(0, 0.7, 10), student(1, 0.6, 10, path="none")
    other_recipe = plain.recipe.model_copy(update={"student": plain.recipe.student.model_copy(update={"width": 32})})
    other = dataclasses.replace(plain, number=2, recipe=other_recipe)
    assert twin_of(distilled, [distilled, other, plain]) is plain
    assert twin_of(distilled, [distilled, other]) is None
    assert twin_of(plain, [distilled, plain]) is None
