"""Recipes with a given distillation."""

from __future__ import annotations

from kdsearch.config.ranges import values_of
from kdsearch.config.study import StudyConfig
from kdsearch.search.recipes import choose
from kdsearch.trials.recipe import Recipe


def recipe_of(study: StudyConfig, variant: tuple[str, str, str, str] | None, *, seed: int = 0) -> Recipe:
    """The study's first recipe, undistilled or with that path, loss, teacher's view and loss_mix."""
    recipe = choose(study, lambda _name, value: values_of(value)[0], seed=seed)
    if variant is None:
        return recipe
    path, loss, view, loss_mix = variant
    content = recipe.model_dump()
    softened = {"temperature": 2.0} if (path, loss) == ("logits", "kld") else {}
    term = {"path": path, "loss": loss, "teacher_view": view, "weight": 0.5, **softened}
    content["distillation"] = {"terms": (term,), "loss_mix": loss_mix}
    return Recipe.model_validate(content)
