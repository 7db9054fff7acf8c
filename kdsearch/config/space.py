"""The search space a study file spans: its dimensions, its size, and the recipe a choice of values makes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from pydantic import BaseModel

from kdsearch.config.distillation import DistillationSpace, DistilledPath, Path, Stride
from kdsearch.config.ranges import AnyRange, extremes_of, is_range, values_of
from kdsearch.config.student import StudentSpec, spec_of
from kdsearch.config.study import StudyConfig


def dimensions(study: StudyConfig) -> dict[str, AnyRange]:
    """Every searched setting by its dotted name."""
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


def compared_by(study: StudyConfig) -> set[tuple[DistilledPath, Stride | None]]:
    """What some recipe compares of student and teacher: each path with its maps' stride, None for the outputs."""
    if isinstance(study.distillation, DistillationSpace):
        paths: list[Path] = values_of(study.distillation.path) or []  # type: ignore[assignment]  # as the section says
        return {(path, None) for path in paths if path != "none"}
    found: set[tuple[DistilledPath, Stride | None]] = set()
    for term in study.distillation:
        strides: list[Stride | None] = values_of(getattr(term, "stride", None)) or []  # type: ignore[assignment]  # likewise
        found |= {(getattr(term, "on"), stride) for stride in strides}  # noqa: B009 - a space hides its settings' types
    return found


def size_of(study: StudyConfig) -> int | None:
    """How many different recipes the space holds; None where a range is continuous."""
    counts = {name: values_of(value) for name, value in dimensions(study).items()}
    if any(values is None for values in counts.values()):
        return None
    single = isinstance(study.distillation, DistillationSpace)
    other = math.prod(len(v or ()) for name, v in counts.items() if not (single and name.startswith("distillation.")))
    return other * _ways_of(study.distillation) if isinstance(study.distillation, DistillationSpace) else other


def _ways_of(space: DistillationSpace) -> int:
    """How many different ways to distil the section of one term holds."""

    def count(key: str) -> int:
        return len(values_of(getattr(space, key)) or ())

    def of(path: DistilledPath) -> int:
        ways = sum(count("temperature") if (path, loss) == ("logits", "kld") else 1 for loss in space.losses_of(path))
        return ways * count("teacher_view") * count("weight")

    paths: list[Path] = values_of(space.path) or []  # type: ignore[assignment]  # as the section says
    return sum(1 if path == "none" else of(path) for path in paths)


def extreme_students(study: StudyConfig) -> Iterator[StudentSpec]:
    """Students at the corners of the space, among them the smallest and the largest."""
    section, spec = study.student, spec_of(study.student)
    keys = list(type(section).model_fields)
    for values in itertools.product(*(extremes_of(getattr(section, key)) for key in keys)):
        yield spec.model_validate(dict(zip(keys, values, strict=True)))
