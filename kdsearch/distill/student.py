"""Trains a student, distilled or not, from its recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from kdsearch.config.distillation import (
    Stride,
    asks_for_every_stride,
    at_strides,
    stride_of,
    teaches_without_masks,
)
from kdsearch.config.networks import StudentSpec
from kdsearch.config.task import Task
from kdsearch.distill.batches import TrainingData
from kdsearch.distill.checkpoint import Checkpoint
from kdsearch.distill.feature_maps import HiddenMaps, MapBudget, offset_by_padding
from kdsearch.distill.loop import predict_logits, reporting_memory, score, train
from kdsearch.distill.objective import Distillation, Objective, Supervised
from kdsearch.distill.optimization import Slow
from kdsearch.distill.result import Kept, Trained
from kdsearch.distill.teacher import TeacherRecipe, train_teacher
from kdsearch.models.contract import normalize
from kdsearch.models.given_teachers import TeacherNetwork, one_network
from kdsearch.models.students import StudentNetwork, build_student
from kdsearch.models.timm_student import TimmStudent
from kdsearch.models.unet import UNet, inherit, initialize
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import EpochReport

MEASURED_IMAGES = 128
"""Number of images on which the statistics of the teacher's feature maps are measured."""


class TeacherAtHand(Protocol):
    """A trained teacher from any source."""

    def load(self, device: torch.device) -> TeacherNetwork:
        """The network, for evaluation only."""
        ...

    def logits(self, device: torch.device) -> Tensor:
        """N×C×H×W for the training images, in half precision."""
        ...

    def left_out(self, device: torch.device) -> Tensor | None:
        """N: the ensemble member that was not trained on each training image; None if there are no such members."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Donor:
    """A parent trial's student, whose weights another student inherits."""

    student: StudentSpec
    weights: bytes
    """As in ``Trained``."""

    def network(self, task: Task, device: torch.device) -> UNet:
        """Builds the network for a task and loads its weights."""
        network = build_student(self.student, channels=task.channels, outputs=task.outputs, begun=False, device=device)
        network.load_state_dict(load(self.weights))
        assert isinstance(network, UNet), "only U-Nets pass on weights"
        return network


class Trainer:
    """Trains networks on one set of images; loads the teacher's logits and maps once, when they are first needed."""

    def __init__(self, data: TrainingData, teacher: TeacherAtHand | None, *, budget: MapBudget | None = None) -> None:
        """``teacher`` is None if the network to train is a teacher.

        ``budget`` is shared by the trainers of a process; None creates a separate one.
        """
        self.budget = budget or MapBudget()
        self.makes_teachers = teacher is None
        self._data = data
        self._labelled = dataclasses.replace(data, unlabelled=None)
        self._teacher = teacher
        self._network: TeacherNetwork | None = None
        self._with_logits: TrainingData | None = None
        self._logit_std = 1.0
        self._looks: dict[Stride | None, float] = {}
        self._hidden: dict[tuple[Stride | None, float | None], HiddenMaps] = {}
        self._views: tuple[int, int] | None = None
        """Seed and batch size of the last training run that compared feature maps."""

    def train(
        self,
        recipe: Recipe | TeacherRecipe,
        *,
        checkpoint: Checkpoint | None = None,
        kept: Kept = "best",
        donor: Donor | None = None,
    ) -> Generator[EpochReport, None, Trained]:
        """Trains the recipe's student or teacher; see ``distil`` and ``train_teacher``."""
        if isinstance(recipe, TeacherRecipe):
            return train_teacher(recipe, self._labelled, checkpoint=checkpoint, kept=kept)
        return self.distil(recipe, checkpoint=checkpoint, kept=kept, donor=donor)

    def distil(
        self,
        recipe: Recipe,
        *,
        checkpoint: Checkpoint | None = None,
        kept: Kept = "best",
        donor: Donor | None = None,
    ) -> Generator[EpochReport, None, Trained]:
        """Trains the recipe's student, resuming from its checkpoint if there is one, and yields one report per epoch.

        ``donor`` is the student that the recipe's ``start`` names, or None if it names none. Raises TrainingFailed
        with the reason if training cannot continue.
        """
        with reporting_memory():
            task, pixels = self._data.train.task, self._data.train.pixels
            student = build_student(
                recipe.student, channels=task.channels, outputs=task.outputs, seed=recipe.seed, device=self._data.device
            )
            if isinstance(student, UNet) and student.statistics is not None:
                student.statistics.measure(pixels)
            assert (donor is None) == (recipe.start is None), "there is a donor exactly if the recipe names one"
            if donor is not None:
                assert isinstance(student, UNet), "only U-Nets inherit weights"
                inherit(student, donor.network(task, self._data.device), pixels)
            objective, extra, data = self._objective(recipe, student)
            fitted = yield from train(
                student,
                objective,
                data,
                recipe.training,
                seed=recipe.seed,
                extra=extra,
                slow=_slow(student),
                checkpoint=checkpoint,
                kept=kept,
            )
            scores = score(student, data.validation, fitted)
        weights = save({name: tensor.contiguous() for name, tensor in student.state_dict().items()})
        return Trained(scores=scores, weights=weights)

    def _objective(self, recipe: Recipe, student: StudentNetwork) -> tuple[Objective, nn.Module | None, TrainingData]:
        spec, kind = recipe.distillation, recipe.training.supervised_loss
        if spec is None:
            return Supervised(student, kind), None, self._labelled
        spec = at_strides(spec, self._common_strides(student)) if asks_for_every_stride(spec) else spec
        views = {term.teacher_view for term in spec.terms if term.path == "logits"}
        data = self._data_with_logits() if views else self._data  # both views need their standard deviation
        if "weak" not in views:
            data = dataclasses.replace(data, teacher_logits=None, unlabelled=self._data.unlabelled)
        if not teaches_without_masks(spec):
            data = dataclasses.replace(data, unlabelled=None)
        if self._views != (recipe.seed, recipe.training.batch_size):  # cached maps of other views are useless now
            self.budget.make_room()
            self._views = recipe.seed, recipe.training.batch_size
        distillation = Distillation(
            student,
            spec,
            kind,
            teacher=self._online_teacher() if "same" in views else None,
            hidden={
                stride_of(term): self._hidden_maps(stride_of(term), student)
                for term in spec.terms
                if term.path != "logits"
            },
            student_channels=student.map_channels,
            logit_std=self._logit_std,
        )
        initialize(distillation, torch.Generator().manual_seed(recipe.seed))
        return distillation.to(self._data.device), distillation, data

    def _data_with_logits(self) -> TrainingData:
        if self._with_logits is None:
            assert self._teacher is not None, "a distilled student has a teacher"
            logits = self._teacher.logits(self._data.device)
            self._logit_std = float(logits.float().std())
            unlabelled = self._data.unlabelled
            if unlabelled is not None:
                predicted = predict_logits(self._online_teacher(), unlabelled.pixels)
                unlabelled = dataclasses.replace(unlabelled, teacher_logits=predicted.half())
            left_out = self._teacher.left_out(self._data.device)
            self._with_logits = dataclasses.replace(
                self._data, teacher_logits=logits, left_out=left_out, unlabelled=unlabelled
            )
        return self._with_logits

    def _common_strides(self, student: StudentNetwork) -> list[Stride]:
        """Strides at which both student and teacher have maps; the teacher's maps must have several channels."""
        width = self._data.train.task.width
        maps = self._online_teacher().features(normalize(self._data.train.pixels[:1]))
        given = {width // one.shape[-1] for one in maps if one.shape[1] > 1}
        strides: list[Stride] = sorted(given & set(student.map_channels))  # type: ignore[arg-type]  # powers of two
        return strides

    def _hidden_maps(self, stride: Stride | None, student: StudentNetwork) -> HiddenMaps:
        offset = None if student.centered else self._apart(stride, student)
        if (stride, offset) not in self._hidden:
            pixels = self._data.train.pixels
            # evenly spaced, so that all labels and sources are included
            spread = torch.linspace(0, len(pixels) - 1, min(len(pixels), MEASURED_IMAGES)).long()
            self._hidden[stride, offset] = HiddenMaps(
                self._online_teacher(), normalize(pixels[spread]), stride=stride, offset=offset, budget=self.budget
            )
        return self._hidden[stride, offset]

    def _apart(self, stride: Stride | None, student: StudentNetwork) -> float:
        """How many cells the teacher's maps are shifted relative to the student's, by the geometry of both."""
        channels = self._data.train.task.channels
        if stride not in self._looks:
            network, times = one_network(self._online_teacher())
            own = None if stride is None else round(stride * times)
            self._looks[stride] = offset_by_padding(network, stride=own, channels=channels)
        return self._looks[stride] - offset_by_padding(student, stride=stride, channels=channels)

    def _online_teacher(self) -> TeacherNetwork:
        if self._network is None:
            assert self._teacher is not None, "a distilled student has a teacher"
            self._network = self._teacher.load(self._data.device)
        return self._network


def _slow(student: StudentNetwork) -> Slow | None:
    if not isinstance(student, TimmStudent) or student.encoder_lr_factor == 1:
        return None
    return Slow(part=student.encoder, fraction=student.encoder_lr_factor)
