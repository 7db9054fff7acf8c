"""The loss of a training step: against the masks, or against the masks and the teacher's predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdsearch.config.distillation import DistillationSpec, Stride, Term, boundary_of, stride_of, temperature_of
from kdsearch.config.training import SupervisedLoss
from kdsearch.distill import losses
from kdsearch.distill.batches import Batch
from kdsearch.distill.feature_maps import HiddenMaps
from kdsearch.distill.losses import TERM_LOSSES, Setting
from kdsearch.measure.scores import predict_classes
from kdsearch.models.contract import Network, Outputs, maps_at
from kdsearch.models.teacher import Ensemble, Resized

Objective: TypeAlias = Callable[[Batch], Tensor]
"""The loss of one batch."""


class Supervised:
    """The loss against the masks, computed in float32 whatever the network's precision."""

    def __init__(self, network: Network, kind: SupervisedLoss) -> None:
        self._network, self._kind = network, kind

    def __call__(self, batch: Batch) -> Tensor:
        logits = self._network.outputs(batch.image).logits
        with torch.autocast(logits.device.type, enabled=False):
            return losses.supervised(logits.float(), batch.target, self._kind, batch.counts)


class TermModule(nn.Module):
    """One distillation term, not yet weighted: the distance from student to teacher in logits or feature maps."""

    def __init__(
        self,
        term: Term,
        *,
        common: bool,
        kind: SupervisedLoss,
        teacher: Network | None,
        hidden: HiddenMaps | None,
        student_channels: int,
        logit_std: float,
    ) -> None:
        """``common``: whether logits and maps are brought to one scale; if not, ``logit_std`` has no effect."""
        super().__init__()
        self._teacher = (teacher,)  # a tuple keeps torch from registering it as a submodule
        self._term, self._loss, self._hidden, self._common = term, TERM_LOSSES[term.loss], hidden, common
        self._kind, self._logit_std = kind, logit_std if common else 1.0
        self._stride = stride_of(term)
        self.regressor: nn.Module | None = None
        if term.path == "regressor":
            assert hidden is not None, "the regressor needs the teacher's feature maps"
            self.regressor = regressor(student_channels, hidden.mean.shape[1])

    def forward(self, student: Outputs, batch: Batch) -> Tensor:
        """The loss of one batch, in float32, for the student's outputs."""
        if self._term.path == "logits":
            assert self._loss.logits is not None, "the study file's check allows only losses that compare logits"
            teacher = self._teacher_logits(batch)
            return self._loss.logits(
                student.logits.float(), teacher, self._setting(student, batch, self._weights(batch, teacher))
            )
        maps = maps_at(student.features, self._stride, side=batch.image.shape[-1]).float()
        return self._compare_maps(maps, batch, self._setting(student, batch))

    def _weights(self, batch: Batch, teacher: Tensor) -> Tensor | None:
        """Pixel weights by the outlines of the masks, or of the teacher's predictions if an image has no mask.

        Pixels that do not count have the weight 0.
        """
        extra, known = boundary_of(self._term), batch.known_target
        weights = None
        if extra:
            weights = losses.outline_weights(torch.cat([known, predict_classes(teacher[len(known) :])]), extra)
        if batch.counts is None:
            return weights
        weights = batch.counts if weights is None else weights * batch.counts
        return weights / weights.mean(dim=(2, 3), keepdim=True).clamp_min(1e-6)

    def _setting(self, student: Outputs, batch: Batch, weights: Tensor | None = None) -> Setting:
        return Setting(
            logit_std=self._logit_std,
            temperature=temperature_of(self._term) or 1.0,
            supervised=self._kind,
            target=batch.known_target,
            classes=max(2, student.logits.shape[1]),
            weights=weights,
            counts=batch.counts,
        )

    def _view(self, batch: Batch) -> Tensor:
        return batch.image if self._term.teacher_view == "same" else batch.weak

    def _teacher_logits(self, batch: Batch) -> Tensor:
        if batch.teacher_logits is not None and self._term.teacher_view == "weak":
            return batch.teacher_logits
        teacher = self._teacher[0]
        assert teacher is not None, "either batches carry the teacher's logits or the teacher is loaded"
        with torch.no_grad():
            if batch.left_out is None:
                return teacher.outputs(self._view(batch)).logits.float()
            assert isinstance(teacher, Ensemble | Resized), "other teachers have no members to leave out"
            return teacher.logits_by(self._view(batch), batch.left_out).float()

    def _compare_maps(self, student: Tensor, batch: Batch, setting: Setting) -> Tensor:
        assert self._hidden is not None, "the term compares feature maps"
        standard = self._common and self._term.path != "attention"
        teacher = self._hidden.standardized(self._view(batch)) if standard else self._hidden(self._view(batch))
        if self.regressor is not None:
            student = self.regressor(student)
        elif self._term.path == "hidden" and self._common:
            student = losses.standardized(student)
        student, teacher = on_one_grid(student, teacher)
        if self._term.path == "attention":
            student, teacher = losses.attention(student), losses.attention(teacher)
        if batch.counts is not None:
            share = functional.adaptive_avg_pool2d(batch.counts, (student.shape[-2], student.shape[-1]))
            student, teacher = student * share, teacher * share
        assert self._loss.maps is not None, "the study file's check allows only losses that compare feature maps"
        return self._loss.maps(student, teacher, setting)


class Distillation(nn.Module):
    """The loss of one student against masks and teacher, combined by the spec's ``loss_mix``.

    ``interpolate`` follows the paper: weight · term + (1 - weight) · supervised, of raw maps (Behboodi et al. 2025,
    equation for L). ``add`` is supervised + the sum of weight · term, on a common scale. The module's parameters belong
    to the regressors, which are trained jointly and then discarded.
    """

    def __init__(
        self,
        student: Network,
        spec: DistillationSpec,
        kind: SupervisedLoss,
        *,
        teacher: Network | None = None,
        hidden: Mapping[Stride | None, HiddenMaps] | None = None,
        student_channels: Mapping[int, int] | None = None,
        logit_std: float = 1.0,
    ) -> None:
        """``teacher`` is used if batches carry no logits; ``hidden`` has its feature maps by the strides of the terms.

        ``student_channels`` gives the channels of the student's maps by stride; ``logit_std`` is the standard deviation
        of the teacher's logits.
        """
        super().__init__()
        assert len(spec.terms) == 1 or spec.loss_mix == "add", "the paper's mix has one term"
        self._student = (student,)  # a tuple keeps torch from registering it as a submodule
        self._spec, self._kind = spec, kind
        self.terms = nn.ModuleList(
            TermModule(
                term,
                common=spec.loss_mix == "add",
                kind=kind,
                teacher=teacher,
                hidden=None if term.path == "logits" or hidden is None else hidden[stride_of(term)],
                student_channels=_channels_at(student_channels or {}, stride_of(term)),
                logit_std=logit_std,
            )
            for term in spec.terms
        )

    def forward(self, batch: Batch) -> Tensor:
        outputs = self._student[0].outputs(batch.image)
        with torch.autocast(outputs.logits.device.type, enabled=False):
            known = outputs.logits[: batch.labelled].float()
            loss = losses.supervised(known, batch.known_target, self._kind, batch.known_counts)
            for term, compare in zip(self._spec.terms, self.terms, strict=True):
                distilled = compare(outputs, batch)
                if self._spec.loss_mix == "interpolate":
                    loss = term.weight * distilled + (1 - term.weight) * loss
                else:
                    loss = loss + term.weight * TERM_LOSSES[term.loss].scales[term.path] * distilled
        return loss


def _channels_at(channels: Mapping[int, int], stride: Stride | None) -> int:
    """Channels of the student's maps at a stride (None: the encoder's output); 0 if unknown."""
    return channels[stride or max(channels)] if channels else 0


def regressor(student_channels: int, teacher_channels: int) -> nn.Sequential:
    """Two convolutions and a ReLU that map the student's channels to the teacher's."""
    return nn.Sequential(
        nn.Conv2d(student_channels, teacher_channels, kernel_size=1),
        nn.ReLU(),
        nn.Conv2d(teacher_channels, teacher_channels, kernel_size=1),
    )


def on_one_grid(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pools both maps to the coarser of the two grids."""
    height, width = (min(a, b) for a, b in zip(student.shape[-2:], teacher.shape[-2:], strict=True))

    def pooled(maps: Tensor) -> Tensor:
        return maps if maps.shape[-2:] == (height, width) else functional.adaptive_avg_pool2d(maps, (height, width))

    return pooled(student), pooled(teacher)
