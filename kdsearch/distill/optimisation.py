"""Optimisers and learning-rate schedules by their names in a study file."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR

from kdsearch.config.training import TrainingSpec

MOMENTUM = 0.9
"""Of SGD."""
SHORTEST_CYCLE = 10
"""Steps; torch divides by zero in shorter ones. A shorter training ends within the cycle."""


def build_optimizer(parameters: Iterable[nn.Parameter], spec: TrainingSpec) -> Optimizer:
    """The optimiser at the spec's learning rate and weight decay."""
    match spec.optimizer:
        case "adam":
            return Adam(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)
        case "adamw":
            return AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)
        case "sgd":
            return SGD(
                parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, momentum=MOMENTUM, nesterov=True
            )


def build_schedule(optimizer: Optimizer, spec: TrainingSpec, *, steps: int) -> LRScheduler:
    """The schedule over ``steps`` training steps in all, to be moved on after each."""
    match spec.schedule:
        case "constant":
            return ConstantLR(optimizer, factor=1.0)
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=steps)
        case "onecycle":
            return OneCycleLR(
                optimizer, max_lr=spec.learning_rate, total_steps=max(steps, SHORTEST_CYCLE), pct_start=0.2
            )
