"""The search space of a study file: its dimensions, its size and its extreme students."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from kdsearch.config.distillation import (
    AttentionStride,
    DistillationSpace,
    DistilledPath,
    Loss,
    Path,
    is_by_pixel,
    is_softened,
)
from kdsearch.config.networks import StudentSpec, spec_of
from kdsearch.config.ranges import AnyRange, count_of, extremes_of, is_range, values_of
from kdsearch.config.study import StudyConfig


def dimensions(study: StudyConfig) -> dict[str, AnyRange]:
    """Returns every searched setting by its dotted name."""
    found: dict[str, AnyRange] = {}

    def collect(section: BaseModel, name: str) -> None:
        for key in type(section).model_fields:
            value = getattr(section, key)
            if is_range(value):
                found[f"{name}.{key}"] = value
            elif isinstance(value, BaseModel):
                collect(value, f"{name}.{key}")

    collect(study.student, "student")
    if isinstance(study.distillation, DistillationSpace):
        collect(study.distillation, "distillation")
    else:
        for place, term in enumerate(study.distillation):
            collect(term, f"distillation.{place}")
    collect(study.training, "training")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What at least one recipe compares between student and teacher."""

    path: DistilledPath
    loss: Loss
    stride: AttentionStride | None = None
    """Of the feature maps; None for the encoders' outputs and for logits."""


def comparisons_of(study: StudyConfig) -> list[Comparison]:
    """Returns everything that the study's recipes compare, without duplicates."""
    space = study.distillation
    if isinstance(space, DistillationSpace):
        paths: list[Path] = values_of(space.path) or []  # type: ignore[assignment]  # as the section says
        return [Comparison(path=path, loss=loss) for path in paths if path != "none" for loss in space.losses_of(path)]
    found: list[Comparison] = []
    for term in space:
        strides: list[AttentionStride | None] = values_of(getattr(term, "stride", None)) or []  # type: ignore[assignment]  # likewise
        on, loss = getattr(term, "path"), getattr(term, "loss")  # noqa: B009 - a space hides its settings' types
        found += [Comparison(path=on, loss=loss, stride=stride) for stride in strides]
    return list(dict.fromkeys(found))


def size_of(study: StudyConfig) -> int | None:
    """Number of different recipes in the space; None if a range is continuous."""
    counts = {name: count_of(value) for name, value in dimensions(study).items()}
    if None in counts.values():
        return None
    single = isinstance(study.distillation, DistillationSpace)
    other = math.prod(n or 0 for name, n in counts.items() if not (single and name.startswith("distillation.")))
    return other * _ways_of(study.distillation) if isinstance(study.distillation, DistillationSpace) else other


def _ways_of(space: DistillationSpace) -> int:
    """Number of different distillations in a section of a single term."""

    def count(key: str) -> int:
        return count_of(getattr(space, key)) or 0

    def of(path: DistilledPath) -> int:
        ways = 0
        for loss in space.losses_of(path):
            softened = count("temperature") if is_softened(path, loss) else 1
            ways += softened * (count("boundary") if is_by_pixel(path, loss) else 1)
        return ways * count("teacher_view") * count("weight")

    paths: list[Path] = values_of(space.path) or []  # type: ignore[assignment]  # as the section says
    return sum(1 if path == "none" else of(path) for path in paths)


def extreme_students(study: StudyConfig) -> Iterator[StudentSpec]:
    """Yields the students at the corners of the space, including the smallest and the largest."""
    section, spec = study.student, spec_of(study.student)
    keys = list(type(section).model_fields)
    for values in itertools.product(*(extremes_of(getattr(section, key)) for key in keys)):
        yield spec.model_validate(dict(zip(keys, values, strict=True)))
