"""The losses of distillation's terms, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from kdsearch.config.distillation import DistilledPath, Loss
from kdsearch.config.training import SupervisedLoss
from kdsearch.distill import losses


@dataclass(frozen=True, slots=True, kw_only=True)
class Softening:
    """What a comparison of logits may depend on."""

    logit_std: float
    """Standard deviation of the teacher's logits; 1 where they are compared as they come."""
    temperature: float
    supervised: SupervisedLoss
    """The loss against the masks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TermLoss:
    """How far a student is from its teacher, by one loss."""

    logits: Callable[[Tensor, Tensor, Softening], Tensor] | None
    """Of the student's and the teacher's N×C×H×W; None where the loss is of maps alone."""
    maps: Callable[[Tensor, Tensor], Tensor] | None
    """Of the student's and the teacher's N×K×h×w; None where the loss is of logits alone."""
    scales: Mapping[DistilledPath, float]
    """What brings each path's gradient near that of the supervised loss, measured at the encoders' outputs.

    From ``tests/benchmarks/gradients.py``.
    """


TERM_LOSSES: dict[Loss, TermLoss] = {
    "mse": TermLoss(
        logits=lambda student, teacher, how: losses.logits_mse(student / how.logit_std, teacher / how.logit_std),
        maps=losses.maps_mse,
        scales={"logits": 0.35, "hidden": 1.5, "attention": 1.5, "regressor": 1.5},
    ),
    "kld": TermLoss(
        logits=lambda student, teacher, how: losses.logits_kld(student, teacher, how.temperature),
        maps=losses.maps_kld,
        scales={"logits": 0.7, "hidden": 1.5, "attention": 1.5, "regressor": 3.0},
    ),
    "dml": TermLoss(
        logits=lambda student, teacher, how: losses.logits_dml(student, teacher, how.supervised),
        maps=None,
        scales={"logits": 1.0},
    ),
}
"""By the name in a study file."""
