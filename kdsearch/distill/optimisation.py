"""Optimisers and learning-rate schedules by their names in a study file, and averages of weights."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from kdsearch.config.training import TrainingSpec
from kdsearch.distill.batches import Batch
from kdsearch.distill.objective import Objective
from kdsearch.errors import first_line

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

    Its decay is ``exp(-1 / n)`` for ``n`` steps in ``ema_epochs``; None where the spec averages nothing. Before it
    has seen as many, it is the plain mean of what it has, so that the random start has no part of its own.
    """
    if spec.ema_epochs is None:
        return None
    newest = 1 - math.exp(-1 / (spec.ema_epochs * steps_per_epoch))

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


WARM_UP = 3
"""Batches of a shape that are carried out step by step before their kernels are recorded; libraries settle in these."""
Shape: TypeAlias = tuple[object, ...]

logger = logging.getLogger(__name__)


class Gradients:
    """Leaves the gradients of an objective's loss in the parameters; on a CUDA device by a graph for each shape.

    A small network's step is hundreds of kernels of a few microseconds, each of which Python launches; a graph launches
    all of them at once. Where the objective cannot be recorded, a warning says so and it runs step by step.
    """

    def __init__(
        self,
        objective: Objective,
        parameters: Sequence[nn.Parameter],
        scaler: torch.amp.GradScaler,
        *,
        device: torch.device,
        precision: torch.dtype | None,
        graphs: bool | None = None,
    ) -> None:
        """``graphs``: whether to record them; on a CUDA device unless given."""
        self._objective, self._parameters, self._scaler = objective, parameters, scaler
        self._device, self._precision = device, precision
        self._records = device.type == "cuda" if graphs is None else graphs
        self._seen: Counter[Shape] = Counter()
        self._recorded: dict[Shape, _Recorded] = {}

    @property
    def recorded(self) -> int:
        """How many shapes of batches are recorded."""
        return len(self._recorded)

    def __call__(self, batch: Batch) -> Tensor:
        """The batch's loss, which the next batch may overwrite; gradients are scaled by the scaler."""
        shape = _shape(batch)
        if self._records and shape not in self._recorded and self._seen[shape] == WARM_UP:
            self._record(batch, shape)
        if self._records and shape in self._recorded:
            return self._recorded[shape].replay(batch, self._parameters)
        self._seen[shape] += 1
        with self._beside() if self._records else contextlib.nullcontext():
            return self._compute(batch)

    def _compute(self, batch: Batch) -> Tensor:
        for parameter in self._parameters:
            parameter.grad = None
        # weights that autocast has cast before a graph would not be cast anew in it
        with torch.autocast(
            self._device.type, self._precision, enabled=self._precision is not None, cache_enabled=not self._records
        ):
            loss = self._objective(batch)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return loss.detach()

    def _record(self, batch: Batch, shape: Shape) -> None:
        static = copy.deepcopy(batch)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                loss = self._compute(static)
        except RuntimeError as error:
            torch.cuda.synchronize(self._device)
            logger.warning("the step cannot be recorded as a CUDA graph and runs more slowly: %s", first_line(error))
            self._records = False
            return
        gradients = [parameter.grad for parameter in self._parameters]
        self._recorded[shape] = _Recorded(graph=graph, batch=static, loss=loss, gradients=gradients)

    @contextlib.contextmanager
    def _beside(self) -> Iterator[None]:
        """In a stream beside the current one, as graphs want of what comes before them."""
        current = torch.cuda.current_stream(self._device)
        beside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        beside.wait_stream(current)
        with torch.cuda.stream(beside):
            yield
        current.wait_stream(beside)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    """A graph, and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    loss: Tensor
    gradients: Sequence[Tensor | None]

    def replay(self, batch: Batch, parameters: Sequence[nn.Parameter]) -> Tensor:
        """The loss of another batch of the same shape."""
        static = _tensors(self.batch)
        for name, tensor in _tensors(batch).items():
            static[name].copy_(tensor)
        self.graph.replay()
        for parameter, gradient in zip(parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.loss


def _tensors(batch: Batch) -> dict[str, Tensor]:
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return {name: value for name, value in fields.items() if isinstance(value, Tensor)}


def _shape(batch: Batch) -> Shape:
    return (batch.labelled, *((name, *tensor.shape) for name, tensor in _tensors(batch).items()))
