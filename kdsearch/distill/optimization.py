"""Optimizers, learning-rate schedules, moving averages of weights, and gradients by CUDA graphs."""

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
"""Momentum of SGD."""
SHORTEST_CYCLE = 10
"""Steps; torch divides by zero in shorter cycles. A shorter training run ends within the cycle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """A part of a network, such as a pretrained encoder, that is trained at a fraction of the learning rate."""

    part: nn.Module
    fraction: float


def build_optimizer(parameters: Sequence[nn.Parameter], spec: TrainingSpec, slow: Slow | None = None) -> Optimizer:
    """Builds the optimizer, with a second parameter group for the slow part if there is one.

    It is fused, because a loop over small tensors in Python takes 5 % of a small student's training time.
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
    """An exponential moving average of weights and batch-norm statistics, to be updated after each step.

    The decay is ``exp(-1 / n)`` for ``n`` steps in ``ema_epochs``. During the first ``n`` steps it is the mean of
    all steps so far, so that the random initialization has no influence. Returns None if averaging is off.
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
    """Builds the schedule for a total of ``steps`` training steps."""
    match spec.schedule:
        case "constant":
            return ConstantLR(optimizer, factor=1.0)
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=steps)
        case "onecycle":
            highest = [group["lr"] for group in optimizer.param_groups]
            return OneCycleLR(optimizer, max_lr=highest, total_steps=max(steps, SHORTEST_CYCLE), pct_start=0.2)


WARM_UP = 3
"""Batches of one shape that run without a graph first, so that libraries finish their setup before recording."""
Shape: TypeAlias = tuple[object, ...]

logger = logging.getLogger(__name__)


class Gradients:
    """Computes the gradients of an objective's loss; on a CUDA device, with one CUDA graph per shape of batch.

    A step of a small network consists of hundreds of kernels of a few microseconds, each launched from Python; a graph
    launches them all at once. If the objective cannot be recorded, a warning is logged and it runs without graphs.
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
        """``graphs``: whether to record graphs; None records them on CUDA devices."""
        self._objective, self._parameters, self._scaler = objective, parameters, scaler
        self._device, self._precision = device, precision
        self._records = device.type == "cuda" if graphs is None else graphs
        self._seen: Counter[Shape] = Counter()
        self._recorded: dict[Shape, _Recorded] = {}

    @property
    def recorded(self) -> int:
        return len(self._recorded)

    def __call__(self, batch: Batch) -> Tensor:
        """Returns the batch's loss, which the next call may overwrite; leaves scaled gradients in the parameters."""
        shape = (batch.labelled, *((name, *tensor.shape) for name, tensor in _tensors(batch).items()))
        if self._records and shape not in self._recorded and self._seen[shape] == WARM_UP:
            self._record(batch, shape)
        if self._records and shape in self._recorded:
            return self._recorded[shape].replay(batch, self._parameters)
        self._seen[shape] += 1
        with self._side_stream() if self._records else contextlib.nullcontext():
            return self._compute(batch)

    def _compute(self, batch: Batch) -> Tensor:
        for parameter in self._parameters:
            parameter.grad = None
        # a graph would not repeat a cast of the weights that autocast has cached
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
            logger.warning("cannot record the step as a CUDA graph, so it runs more slowly: %s", first_line(error))
            self._records = False
            return
        gradients = [parameter.grad for parameter in self._parameters]
        self._recorded[shape] = _Recorded(graph=graph, batch=static, loss=loss, gradients=gradients)

    @contextlib.contextmanager
    def _side_stream(self) -> Iterator[None]:
        """Runs warm-up steps in a stream of their own, which CUDA graphs require."""
        current = torch.cuda.current_stream(self._device)
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        side.wait_stream(current)
        with torch.cuda.stream(side):
            yield
        current.wait_stream(side)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    """A graph with the tensors it reads and writes."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    loss: Tensor
    gradients: Sequence[Tensor | None]

    def replay(self, batch: Batch, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Runs the graph on another batch of the same shape and returns the loss."""
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
