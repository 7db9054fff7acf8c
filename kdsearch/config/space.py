"""The search space a study file spans: its dimensions, its size, and the recipe a choice of values makes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import TypeAlias, TypeGuard

from pydantic import BaseModel

from kdsearch.config.distillation import DistillationSpace, DistillationSpec, DistilledPath, Loss, Path
from kdsearch.config.ranges import AnyRange, Choice, FloatRange, IntRange, extremes_of, values_of
from kdsearch.config.recipe import Recipe
from kdsearch.config.student import StudentSpec
from kdsearch.config.study import StudyConfig
from kdsearch.config.training import TrainingSpec

Suggest: TypeAlias = Callable[[str, AnyRange], object]
"""Names one value of a range; the sampler's side of the bargain."""


def choose(study: StudyConfig, suggest: Suggest, *, seed: int) -> Recipe:
    """The recipe that ``suggest``'s choices make; it is asked only for settings that have a meaning in that recipe."""
    student = StudentSpec.model_validate(_settle(study.student, "student", suggest))
    training = TrainingSpec.model_validate(_settle(study.training, "training", suggest))
    return Recipe(student=student, distillation=_distillation(study, suggest), training=training, seed=seed)


def _distillation(study: StudyConfig, suggest: Suggest) -> DistillationSpec | None:
    space = study.distillation
    path: Path = _one(space.path, "distillation.path", suggest)  # type: ignore[assignment]  # as the section says
    if path == "none":
        return None
    loss = _loss(space, path, suggest)
    softened = path == "logits" and loss == "kld"
    temperature = _one(space.temperature, "distillation.temperature", suggest) if softened else None
    return DistillationSpec.model_validate(
        {
            "path": path,
            "loss": loss,
            "teacher_view": _one(space.teacher_view, "distillation.teacher_view", suggest),
            "weight": _one(space.weight, "distillation.weight", suggest),
            "balance": space.balance,
            "temperature": temperature,
        }
    )


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
        nested = isinstance(value, BaseModel) and not _is_range(value)
        settled[key] = _settle(value, dotted, suggest) if nested else _one(value, dotted, suggest)
    return settled


def _one(value: object, name: str, suggest: Suggest) -> object:
    return suggest(name, value) if _is_range(value) else value


def _is_range(value: object) -> TypeGuard[AnyRange]:
    """Whether the setting is searched."""
    return isinstance(value, Choice | IntRange | FloatRange)


def dimensions(study: StudyConfig) -> dict[str, AnyRange]:
    """Every searched setting by its dotted name."""
    found: dict[str, AnyRange] = {}

    def collect(section: BaseModel, name: str) -> None:
        for key in type(section).model_fields:
            value = getattr(section, key)
            if _is_range(value):
                found[f"{name}.{key}"] = value
            elif isinstance(value, BaseModel):
                collect(value, f"{name}.{key}")

    for part in ("student", "distillation", "training"):
        collect(getattr(study, part), part)
    return found


def size_of(study: StudyConfig) -> int | None:
    """How many different recipes the space holds; None where a range is continuous."""
    counts = {name: values_of(value) for name, value in dimensions(study).items()}
    distil = {name.rpartition(".")[2] for name in counts if name.startswith("distillation.")}
    if any(values is None for values in counts.values()):
        return None
    other = math.prod(len(v or ()) for name, v in counts.items() if not name.startswith("distillation."))
    return other * _distillation_count(study, distil)


def _distillation_count(study: StudyConfig, searched: set[str]) -> int:
    def count(key: str) -> int:
        return len(values_of(getattr(study.distillation, key)) or ()) if key in searched else 1

    def of(path: DistilledPath) -> int:
        losses = study.distillation.losses_of(path)
        ways = sum(count("temperature") if (path, loss) == ("logits", "kld") else 1 for loss in losses)
        return ways * count("teacher_view") * count("weight")

    paths: list[Path] = values_of(study.distillation.path) or []  # type: ignore[assignment]  # as the section says
    return sum(1 if path == "none" else of(path) for path in paths)


def extreme_students(study: StudyConfig) -> Iterator[StudentSpec]:
    """Students at the corners of the space, among them the smallest and the largest."""
    section = study.student
    keys = list(type(section).model_fields)
    for values in itertools.product(*(extremes_of(getattr(section, key)) for key in keys)):
        yield StudentSpec.model_validate(dict(zip(keys, values, strict=True)))


def enumerate_choices(study: StudyConfig) -> Iterator[dict[str, object]]:
    """The choices of every different recipe of a finite space, in a fixed order."""
    pending: list[tuple[tuple[str, object], ...]] = [()]
    while pending:
        prefix = pending.pop()
        taken: list[tuple[str, object]] = []

        def suggest(
            name: str,
            value: AnyRange,
            prefix: tuple[tuple[str, object], ...] = prefix,
            taken: list[tuple[str, object]] = taken,
        ) -> object:
            options = values_of(value)
            assert options is not None, f"{name} is not finite"
            if len(taken) < len(prefix):
                taken.append(prefix[len(taken)])
            else:
                pending.extend((*taken, (name, option)) for option in reversed(options[1:]))
                taken.append((name, options[0]))
            return taken[-1][1]

        choose(study, suggest, seed=0)
        yield dict(taken)
