"""What a training step minimises: the masks alone, or the masks and what a teacher says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdsearch.config.distillation import DistillationSpec, DistilledPath, Loss
from kdsearch.config.training import SupervisedLoss
from kdsearch.distill import losses
from kdsearch.distill.hidden_maps import HiddenMaps
from kdsearch.distill.views import Batch
from kdsearch.models.outputs import Network

Objective: TypeAlias = Callable[[Batch], Tensor]
"""The loss of one batch."""

SCALES: dict[tuple[DistilledPath, Loss], float] = {
    ("logits", "mse"): 0.35,
    ("logits", "kld"): 0.7,
    ("logits", "dml"): 1.0,
    ("hidden", "mse"): 1.5,
    ("hidden", "kld"): 1.5,
    ("attention", "mse"): 1.5,
    ("attention", "kld"): 1.5,
    ("regressor", "mse"): 1.5,
    ("regressor", "kld"): 3.0,
}
"""What brings each path's gradient near that of the supervised loss; from ``tests/benchmarks/gradients.py``."""


class Supervised:
    """The loss against the masks alone, in float32 whatever the network computes in."""

    def __init__(self, network: Network, kind: SupervisedLoss) -> None:
        self._network, self._kind = network, kind

    def __call__(self, batch: Batch) -> Tensor:
        """The loss of one batch."""
        logits = self._network.outputs(batch.image).logits
        with torch.autocast(logits.device.type, enabled=False):
            return losses.supervised(logits.float(), batch.target, self._kind)


class Distillation(nn.Module):
    """The loss against masks and teacher, balanced as the spec says, for one student.

    ``shared`` is the paper's, weight · distillation + (1 - weight) · supervised of raw maps (Behboodi et al. 2025,
    equation for L); ``added`` is supervised + weight · distillation on a common scale. Its own parameters are the
    regressor's, which learn along and are thrown away with it.
    """

    def __init__(
        self,
        student: Network,
        spec: DistillationSpec,
        kind: SupervisedLoss,
        *,
        teacher: Network | None = None,
        hidden: HiddenMaps | None = None,
        student_channels: int = 0,
        logit_std: float = 1.0,
    ) -> None:
        """``teacher`` answers where batches carry no logits, ``hidden`` gives its maps where the path compares those.

        ``logit_std`` is the standard deviation of the teacher's logits.
        """
        super().__init__()
        self._networks = (student, teacher)  # in a tuple, so that neither is registered as a part of this module
        self._spec, self._kind, self._hidden = spec, kind, hidden
        self._common = spec.balance == "added"
        self._logit_std = logit_std if self._common else 1.0
        self.regressor: nn.Module | None = None
        if spec.path == "regressor":
            assert hidden is not None, "the regressor learns the teacher's maps"
            self.regressor = regressor(student_channels, hidden.mean.shape[1])

    def forward(self, batch: Batch) -> Tensor:
        """The loss of one batch."""
        outputs = self._networks[0].outputs(batch.image)
        with torch.autocast(outputs.logits.device.type, enabled=False):
            logits, hidden = outputs.logits.float(), outputs.features[-1].float()
            supervised = losses.supervised(logits, batch.target, self._kind)
            if self._spec.path == "logits":
                distilled = self._compare_logits(logits, self._teacher_logits(batch))
            else:
                distilled = self._compare_hidden(hidden, self._teacher_hidden(batch))
        weight = self._spec.weight
        if not self._common:
            return weight * distilled + (1 - weight) * supervised
        return supervised + weight * SCALES[self._spec.path, self._spec.loss] * distilled

    def _view(self, batch: Batch) -> Tensor:
        return batch.image if self._spec.teacher_view == "same" else batch.weak

    def _teacher_logits(self, batch: Batch) -> Tensor:
        if batch.teacher_logits is not None:
            return batch.teacher_logits
        teacher = self._networks[1]
        assert teacher is not None, "batches carry the teacher's logits or there is a teacher to ask"
        with torch.no_grad():
            return teacher.outputs(self._view(batch)).logits.float()

    def _teacher_hidden(self, batch: Batch) -> Tensor:
        assert self._hidden is not None, "the path compares hidden maps"
        standard = self._common and self._spec.path != "attention"
        return self._hidden.standardised(self._view(batch)) if standard else self._hidden(self._view(batch))

    def _compare_logits(self, student: Tensor, teacher: Tensor) -> Tensor:
        match self._spec.loss:
            case "mse":
                return losses.logits_mse(student / self._logit_std, teacher / self._logit_std)
            case "kld":
                return losses.logits_kld(student, teacher, self._spec.temperature or 1.0)
            case "dml":
                return losses.logits_dml(student, teacher, self._kind)

    def _compare_hidden(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.regressor is not None:
            student = self.regressor(student)
        elif self._spec.path == "hidden" and self._common:
            student = losses.standardised(student)
        student, teacher = on_one_grid(student, teacher)
        if self._spec.path == "attention":
            student, teacher = losses.attention(student), losses.attention(teacher)
        if self._spec.loss == "mse":
            return losses.maps_mse(student, teacher)
        return losses.maps_kld(student, teacher, self._spec.temperature or 1.0)


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
