"""Makes one student from a recipe."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

import torch
from safetensors.torch import save
from torch import nn

from kdsearch.config.recipe import Recipe
from kdsearch.distill.arrays import TrainingData
from kdsearch.distill.checkpoint import Checkpoint
from kdsearch.distill.loop import reporting_memory, train
from kdsearch.distill.objective import Distillation, Objective, supervised_objective
from kdsearch.distill.report import EpochReport, Trained
from kdsearch.distill.scoring import score
from kdsearch.distill.views import TeacherMaps
from kdsearch.measure.counts import Cost, count
from kdsearch.models.teacher import Teacher
from kdsearch.models.unet import UNet, build_student, initialise


class TeacherAtHand(Protocol):
    """A trained teacher, wherever it comes from."""

    def load(self, device: torch.device) -> Teacher:
        """The network, for evaluation only."""
        ...

    def maps(self, device: torch.device) -> TeacherMaps:
        """Its maps of the training images in half precision."""
        ...


class Workshop:
    """What one process needs to make students: data, teacher and maps, loaded once and on first need."""

    def __init__(self, data: TrainingData, teacher: TeacherAtHand) -> None:
        self._data = data
        self._teacher = teacher
        self._network: Teacher | None = None
        self._with_maps: TrainingData | None = None

    def distil(self, recipe: Recipe, *, checkpoint: Checkpoint | None = None) -> Generator[EpochReport, None, Trained]:
        """Trains the recipe's student, from its checkpoint where there is one, and yields one report an epoch.

        Raises TrainingFailed with the reason where the training cannot go on.
        """
        with reporting_memory():
            student = build_student(recipe.student, seed=recipe.seed, device=self._data.device)
            objective, extra, data = self._objective(recipe, student)
            fitted = yield from train(
                student, objective, data, recipe.training, seed=recipe.seed, extra=extra, checkpoint=checkpoint
            )
            scores = score(student, data.validation, fitted)
        weights = save({name: tensor.contiguous() for name, tensor in student.state_dict().items()})
        return Trained(scores=scores, weights=weights)

    def _objective(self, recipe: Recipe, student: UNet) -> tuple[Objective, nn.Module | None, TrainingData]:
        spec, kind = recipe.distillation, recipe.training.supervised_loss
        if spec is None:
            return supervised_objective(student, kind), None, self._data
        data = self._data_with_maps()
        assert data.maps is not None
        channels = (student.hidden_channels, data.maps.hidden.shape[1])
        online = spec.teacher_view == "same"
        distillation = Distillation(
            student, spec, kind, teacher=self._online_teacher() if online else None, channels=channels
        )
        initialise(distillation, torch.Generator().manual_seed(recipe.seed))
        return distillation.to(self._data.device), distillation, self._data if online else data

    def _data_with_maps(self) -> TrainingData:
        if self._with_maps is None:
            maps = self._teacher.maps(self._data.device)
            self._with_maps = TrainingData(train=self._data.train, validation=self._data.validation, maps=maps)
        return self._with_maps

    def _online_teacher(self) -> Teacher:
        if self._network is None:
            self._network = self._teacher.load(self._data.device)
        return self._network


def cost_of(recipe: Recipe, *, size: int) -> Cost:
    """Parameters and multiply-adds of the recipe's student for one image, counted without making its weights."""
    return count(build_student(recipe.student, device="meta"), size=size)
