"""Makes students with given scores for tests of the steps after training."""

from __future__ import annotations

from kdsearch.config.study import StudyConfig
from kdsearch.search.recipes import choose
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import Student, job_of_trial
from kdsearch.trials.scores import Overlap, Scores, ToolCount


def recipe(*, path: str = "logits", seed: int = 0) -> Recipe:
    """A recipe of the default study."""
    distillation = {"path": path} if path == "none" else {"path": path, "loss": "kld"}
    study = StudyConfig.model_validate({"name": "a", "distillation": distillation})
    return choose(study, lambda name, _: name, seed=seed)


def scores(*, dice: float, params: int, macs: int) -> Scores:
    """Scores with these three values and plausible ones for the rest."""
    overlap = Overlap(dice=dice, dice_std=0.2, iou=dice / 2, images=10, specificity=None, empty_images=0)
    counts = (ToolCount(tool="fvcore", version="1", value=macs, unit="multiply-adds", input_shape=(1, 1, 32, 32)),)
    return Scores(
        overlap=overlap,
        by_source=(),
        params=params,
        macs=macs,
        flops=2 * macs,
        tool_counts=counts,
        train_seconds=1.0,
        epochs=3,
        best_epoch=2,
    )


def student(number: int, dice: float, params: int, macs: int = 1000, *, path: str = "logits") -> Student:
    """A student with those scores."""
    return Student(
        number=number,
        job=job_of_trial(number),
        recipe=recipe(path=path, seed=number),
        scores=scores(dice=dice, params=params, macs=macs),
    )
