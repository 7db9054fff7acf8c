"""Optimisers and learning-rate schedules by their names in a study file, and averages of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from kdsearch.config.training import TrainingSpec

Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]

MOMENTUM = 0.9
"""Of SGD."""
SHORTEST_CYCLE = 10
"""Steps; torch divides by zero in shorter ones. A shorter training ends within the cycle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """A part of a network that learns at a fraction of the rate, such as a pretrained encoder."""

    part: nn.Module
    fraction: float


def build_optimizer(parameters: Sequence[nn.Parameter], spec: TrainingSpec, slow: Slow | None = None) -> Optimizer:
    """The optimiser at the spec's learning rate and weight decay, in two groups of parameters where a part is slow.

    Fused, because a step that walks small tensors in Python takes a twentieth of a small student's training.
    """
    groups, rate, decay = _groups(parameters, spec, slow), spec.learning_rate, spec.weight_decay
    match spec.optimizer:
        case "adam":
            return Adam(groups, lr=rate, weight_decay=decay, fused=True)
        case "adamw":
            return AdamW(groups, lr=rate, weight_decay=decay, fused=True)
        case "sgd":
            return SGD(groups, lr=rate, weight_decay=decay, momentum=MOMENTUM, nesterov=True, fused=True)


def _groups(parameters: Sequence[nn.Parameter], spec: TrainingSpec, slow: Slow | None) -> list[dict[str, object]]:
    held = {id(parameter) for parameter in slow.part.parameters()} if slow is not None else set()
    usual: dict[str, object] = {"params": [parameter for parameter in parameters if id(parameter) not in held]}
    if slow is None:
        return [usual]
    rest = [parameter for parameter in parameters if id(parameter) in held]
    return [usual, {"params": rest, "lr": spec.learning_rate * slow.fraction}]


def averaged(model: nn.Module, spec: TrainingSpec, *, steps_per_epoch: float) -> AveragedModel | None:
    """The model's exponential moving average, batch norms' statistics included, to be updated after each step.

    Its decay is ``exp(-1 / n)`` for ``n`` steps in ``averaged_epochs``; None where the spec averages nothing. Before it
    has seen as many, it is the plain mean of what it has, so that the random start has no part of its own.
    """
    if spec.averaged_epochs is None:
        return None
    newest = 1 - math.exp(-1 / (spec.averaged_epochs * steps_per_epoch))

    def update(averages: Tensors, current: Tensors, seen: Tensor | int) -> None:
        weight = max(newest, 1 / (int(seen) + 1))
        for average, value in zip(averages, current, strict=True):
            if average.is_floating_point():
                average.lerp_(value, weight)
            else:
                average.copy_(value)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def build_schedule(optimizer: Optimizer, spec: TrainingSpec, *, steps: int) -> LRScheduler:
    """The schedule over ``steps`` training steps in all, to be moved on after each."""
    match spec.schedule:
        case "constant":
            return ConstantLR(optimizer, factor=1.0)
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=steps)
        case "onecycle":
            highest = [group["lr"] for group in optimizer.param_groups]
            return OneCycleLR(optimizer, max_lr=highest, total_steps=max(steps, SHORTEST_CYCLE), pct_start=0.2)
