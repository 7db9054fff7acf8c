"""The recipe that a choice of values makes, and all the choices of a finite space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from pydantic import BaseModel

from kdsearch.config.distillation import (
    DEFAULT_TEMPERATURE,
    DistillationSpace,
    DistillationSpec,
    DistilledPath,
    Loss,
    Path,
    is_by_pixel,
    is_softened,
)
from kdsearch.config.networks import spec_of
from kdsearch.config.ranges import AnyRange, Choice, Section, count_of, is_range, value_at
from kdsearch.config.study import StudyConfig
from kdsearch.config.training import TrainingSpec
from kdsearch.trials.recipe import Recipe

Suggest: TypeAlias = Callable[[str, AnyRange], object]
"""Names one value of a range; the sampler's side of the bargain."""


def choose(study: StudyConfig, suggest: Suggest, *, seed: int) -> Recipe:
    """The recipe that ``suggest``'s choices make; it is asked only for settings that have a meaning in that recipe."""
    student = spec_of(study.student).model_validate(_settle(study.student, "student", suggest))
    training = TrainingSpec.model_validate(_settle(study.training, "training", suggest))
    return Recipe(student=student, distillation=_distillation(study, suggest), training=training, seed=seed)


def _distillation(study: StudyConfig, suggest: Suggest) -> DistillationSpec | None:
    space = study.distillation
    if not isinstance(space, DistillationSpace):
        terms = [_term(term, f"distillation.{place}", suggest) for place, term in enumerate(space)]
        return DistillationSpec.model_validate({"terms": tuple(terms), "loss_mix": "add"})
    path: Path = _one(space.path, "distillation.path", suggest)  # type: ignore[assignment]  # as the section says
    if path == "none":
        return None
    loss: Loss = _loss(space, path, suggest)  # type: ignore[assignment]  # likewise
    term: dict[str, object] = {"path": path, "loss": loss}
    if is_softened(path, loss):
        term["temperature"] = _one(space.temperature, "distillation.temperature", suggest)
    if is_by_pixel(path, loss) and space.boundary != 0:
        term["boundary"] = _one(space.boundary, "distillation.boundary", suggest)
    term["teacher_view"] = _one(space.teacher_view, "distillation.teacher_view", suggest)
    term["weight"] = _one(space.weight, "distillation.weight", suggest)
    return DistillationSpec.model_validate({"terms": (term,), "loss_mix": space.loss_mix})


def _term(space: Section, name: str, suggest: Suggest) -> dict[str, object]:
    """One term of a list."""
    settled = _settle(space, name, suggest)
    if settled["loss"] == "kld" and settled["path"] == "logits" and settled["temperature"] is None:
        settled["temperature"] = DEFAULT_TEMPERATURE
    return settled


def _loss(space: DistillationSpace, path: DistilledPath, suggest: Suggest) -> object:
    """Searched among those that the path can be compared by; a sampler needs a name of its own for a part of them."""
    allowed = space.losses_of(path)
    if len(allowed) == 1:
        return allowed[0]
    whole = isinstance(space.loss, Choice) and allowed == space.loss.choice
    return suggest("distillation.loss" if whole else f"distillation.loss.{path}", Choice[Loss](choice=allowed))


def _settle(section: BaseModel, name: str, suggest: Suggest) -> dict[str, object]:
    settled: dict[str, object] = {}
    for key in type(section).model_fields:
        value = getattr(section, key)
        dotted = f"{name}.{key}"
        nested = isinstance(value, BaseModel) and not is_range(value)
        settled[key] = _settle(value, dotted, suggest) if nested else _one(value, dotted, suggest)
    return settled


def _one(value: object, name: str, suggest: Suggest) -> object:
    return suggest(name, value) if is_range(value) else value


def enumerate_choices(study: StudyConfig) -> Iterator[dict[str, object]]:
    """The choices of every different recipe of a finite space, in a fixed order."""
    prefix: list[tuple[str, int]] = []
    """Which value each setting has, by its place."""
    while True:
        ranges: dict[str, AnyRange] = {}

        def suggest(
            name: str,
            value: AnyRange,
            ranges: dict[str, AnyRange] = ranges,
            prefix: list[tuple[str, int]] = prefix,
        ) -> object:
            if len(ranges) == len(prefix):
                prefix.append((name, 0))
            place = prefix[len(ranges)][1]
            ranges[name] = value
            return value_at(value, place)

        choose(study, suggest, seed=0)
        yield {name: value_at(ranges[name], place) for name, place in prefix}
        while prefix:  # the last setting that has a further value takes it; those behind it start over
            name, place = prefix.pop()
            count = count_of(ranges[name])
            assert count is not None, f"{name} is not finite"
            if place + 1 < count:
                prefix.append((name, place + 1))
                break
        if not prefix:
            return
