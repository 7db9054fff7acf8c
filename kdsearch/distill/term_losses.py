"""The losses that terms name, in one table: what each compares, and its scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from kdsearch.config.distillation import DistilledPath, Loss
from kdsearch.config.training import SupervisedLoss
from kdsearch.distill.losses import (
    logits_dml,
    logits_kld,
    logits_mse,
    maps_affinity,
    maps_kld,
    maps_mse,
    maps_pkd,
    maps_region,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a comparison may depend on beside student and teacher."""

    logit_std: float
    """Standard deviation of the teacher's logits; 1 where they are compared as they come."""
    temperature: float
    supervised: SupervisedLoss
    """The loss against the masks."""
    target: Tensor
    """Class numbers M×H×W of the images that have a mask, the first M."""
    classes: int = 2
    """How many there are."""
    weights: Tensor | None = None
    """N×1×H×W of the pixels, with mean 1; None where all count alike."""


Comparing: TypeAlias = Callable[[Tensor, Tensor, Setting], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TermLoss:
    """How far a student is from its teacher, by one loss."""

    logits: Comparing | None = None
    """Of the student's and the teacher's N×C×H×W; None where the loss is of maps alone."""
    maps: Comparing | None = None
    """Of the student's and the teacher's N×K×h×w; None where the loss is of logits alone."""
    scales: Mapping[DistilledPath, float]
    """What brings each path's gradient near that of the supervised loss, measured at the encoders' outputs.

    From ``tests/benchmarks/gradients.py``.
    """


TERM_LOSSES: dict[Loss, TermLoss] = {
    "mse": TermLoss(
        logits=lambda student, teacher, how: logits_mse(student / how.logit_std, teacher / how.logit_std, how.weights),
        maps=lambda student, teacher, _: maps_mse(student, teacher),
        scales={"logits": 0.35, "hidden": 1.5, "attention": 1.5, "regressor": 1.5},
    ),
    "kld": TermLoss(
        logits=lambda student, teacher, how: logits_kld(student, teacher, how.temperature, how.weights),
        maps=lambda student, teacher, _: maps_kld(student, teacher),
        scales={"logits": 0.7, "hidden": 1.5, "attention": 1.5, "regressor": 3.0},
    ),
    "dml": TermLoss(
        logits=lambda student, teacher, how: logits_dml(student, teacher, how.supervised, how.weights),
        scales={"logits": 1.0},
    ),
    "cwd": TermLoss(
        logits=lambda student, teacher, how: maps_kld(student, teacher, how.temperature),
        maps=lambda student, teacher, how: maps_kld(student, teacher, how.temperature),
        scales={"logits": 0.03, "hidden": 3.0, "regressor": 3.0},
    ),
    "pkd": TermLoss(
        maps=lambda student, teacher, _: maps_pkd(student, teacher),
        scales={"hidden": 5.0, "regressor": 5.0},
    ),
    "affinity": TermLoss(
        maps=lambda student, teacher, _: maps_affinity(student, teacher),
        scales={"hidden": 4.0},
    ),
    "region": TermLoss(
        maps=lambda student, teacher, how: maps_region(
            student[: len(how.target)], teacher[: len(how.target)], how.target, classes=how.classes
        ),
        scales={"hidden": 4.0},
    ),
}
"""By the name in a study file."""
