"""What a training step minimises: the masks alone, or the masks and what a teacher says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdsearch.config.distillation import DistillationSpec
from kdsearch.config.training import SupervisedLoss
from kdsearch.distill import losses
from kdsearch.distill.views import Batch, TeacherMaps

Objective: TypeAlias = Callable[[Batch], Tensor]
"""The loss of one batch."""


class Network(Protocol):
    """Gives logits, and the hidden map with them."""

    def with_hidden(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits N×C×H×W and hidden map N×K×h×w of images N×1×H×W."""
        ...


def supervised_objective(network: Network, kind: SupervisedLoss) -> Objective:
    """The loss against the masks alone."""
    return lambda batch: losses.supervised(network.with_hidden(batch.image)[0], batch.target, kind)


class Distillation(nn.Module):
    """w · distillation + (1 - w) · supervised, for one student (Behboodi et al. 2025, equation for L).

    Its own parameters are the regressor's, which learn along and are thrown away with it.
    """

    def __init__(
        self,
        student: Network,
        spec: DistillationSpec,
        kind: SupervisedLoss,
        *,
        teacher: Network | None,
        channels: tuple[int, int],
    ) -> None:
        """``teacher`` answers where batches carry no maps; ``channels``: hidden ones of student and teacher."""
        super().__init__()
        self._networks = (student, teacher)  # in a tuple, so that neither is registered as a part of this module
        self._spec, self._kind = spec, kind
        self.regressor = regressor(*channels) if spec.path == "regressor" else None

    def forward(self, batch: Batch) -> Tensor:
        """The loss of one batch."""
        student = self._networks[0]
        logits, hidden = student.with_hidden(batch.image)
        target = self._teacher_maps(batch)
        if self._spec.path == "logits":
            distilled = self._compare_logits(logits, target.logits)
        else:
            distilled = self._compare_hidden(hidden, target.hidden)
        weight = self._spec.weight
        return weight * distilled + (1 - weight) * losses.supervised(logits, batch.target, self._kind)

    def _teacher_maps(self, batch: Batch) -> TeacherMaps:
        if batch.maps is not None:
            return batch.maps
        teacher = self._networks[1]
        assert teacher is not None, "batches carry the teacher's maps or there is a teacher to ask"
        with torch.no_grad():
            logits, hidden = teacher.with_hidden(batch.image)
        return TeacherMaps(logits=logits, hidden=hidden)

    def _compare_logits(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self._spec.temperature is None:
            return losses.logits_mse(student, teacher)
        return losses.logits_kld(student, teacher, self._spec.temperature)

    def _compare_hidden(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.regressor is not None:
            student = self.regressor(student)
        student, teacher = on_one_grid(student, teacher)
        if student.shape[1] != teacher.shape[1]:
            student, teacher = losses.attention(student), losses.attention(teacher)
        if self._spec.temperature is None:
            return losses.maps_mse(student, teacher)
        return losses.maps_kld(student, teacher, self._spec.temperature)


def regressor(student_channels: int, teacher_channels: int) -> nn.Sequential:
    """Two convolutions and a ReLU that bring the student's channels to the teacher's."""
    return nn.Sequential(
        nn.Conv2d(student_channels, teacher_channels, kernel_size=1),
        nn.ReLU(),
        nn.Conv2d(teacher_channels, teacher_channels, kernel_size=1),
    )


def on_one_grid(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps on the coarser of the two grids; detail is averaged away, never invented."""
    height, width = (min(a, b) for a, b in zip(student.shape[-2:], teacher.shape[-2:], strict=True))

    def pooled(maps: Tensor) -> Tensor:
        return maps if maps.shape[-2:] == (height, width) else functional.adaptive_avg_pool2d(maps, (height, width))

    return pooled(student), pooled(teacher)
