"""A batch's loss and gradients: step by step, or on a GPU as one CUDA graph, whose kernels are launched at once."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from kdsearch.distill.objective import Objective
from kdsearch.distill.views import Batch
from kdsearch.errors import first_line

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
