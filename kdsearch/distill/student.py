"""Makes one student from a recipe."""

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
from kdsearch.distill.batches import TrainingData, UnlabelledGrey
from kdsearch.distill.checkpoint import Checkpoint
from kdsearch.distill.feature_maps import HiddenMaps, MapBudget, offset_by_padding
from kdsearch.distill.loop import predict_logits, reporting_memory, score, train
from kdsearch.distill.objective import Distillation, Objective, Supervised
from kdsearch.distill.optimisation import Slow
from kdsearch.distill.result import Kept, Trained
from kdsearch.distill.teacher import TeacherRecipe, train_teacher
from kdsearch.models.contract import normalise
from kdsearch.models.given_teachers import TeacherNetwork, one_network
from kdsearch.models.students import StudentNetwork, build_student
from kdsearch.models.timm_student import TimmStudent
from kdsearch.models.unet import UNet, inherit, initialise
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import EpochReport

MEASURED_IMAGES = 128
"""On which the statistics of the teacher's hidden maps are measured."""


class TeacherAtHand(Protocol):
    """A trained teacher, wherever it comes from."""

    def load(self, device: torch.device) -> TeacherNetwork:
        """The network, for evaluation only."""
        ...

    def logits(self, device: torch.device) -> Tensor:
        """N×C×H×W of the training images in half precision."""
        ...

    def left_out(self, device: torch.device) -> Tensor | None:
        """N: the member that did not learn from each training image; None if there are no such members."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Donor:
    """A student whose weights another begins with."""

    student: StudentSpec
    weights: bytes
    """As ``Trained`` has them."""

    def network(self, device: torch.device) -> UNet:
        """With its weights."""
        network = build_student(self.student, begun=False, device=device)
        network.load_state_dict(load(self.weights))
        assert isinstance(network, UNet), "of other families nothing is inherited"
        return network


class Trainer:
    """Trains networks on one set of images; a teacher's logits and maps are loaded once, on first need."""

    def __init__(self, data: TrainingData, teacher: TeacherAtHand | None, *, budget: MapBudget | None = None) -> None:
        """``teacher`` is None where the network to train is a teacher.

        ``budget`` is shared by the trainers of a process; None stands for one of its own.
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
        """Seed and batch size of the last training that compared hidden maps."""

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
        """Trains the recipe's student, from its checkpoint where there is one, and yields one report an epoch.

        ``donor`` is the student that the recipe's ``start`` names, None where it names none.
        Raises TrainingFailed with the reason where the training cannot continue.
        """
        with reporting_memory():
            student = build_student(recipe.student, seed=recipe.seed, device=self._data.device)
            assert (donor is None) == (recipe.start is None), "a donor comes with the recipe that names it"
            if donor is not None:
                assert isinstance(student, UNet), "of other families nothing inherits"
                inherit(student, donor.network(self._data.device), self._data.train.grey)
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
        data = self._data_with_logits() if views else self._data  # their deviation is wanted by either view
        if "weak" not in views:
            data = dataclasses.replace(data, teacher_logits=None, unlabelled=self._data.unlabelled)
        if not teaches_without_masks(spec):
            data = dataclasses.replace(data, unlabelled=None)
        self._turn_to_views_of(recipe)
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
        initialise(distillation, torch.Generator().manual_seed(recipe.seed))
        return distillation.to(self._data.device), distillation, data

    def _data_with_logits(self) -> TrainingData:
        if self._with_logits is None:
            assert self._teacher is not None, "a student that is distilled has a teacher"
            logits = self._teacher.logits(self._data.device)
            self._logit_std = float(logits.float().std())
            self._with_logits = dataclasses.replace(
                self._data,
                teacher_logits=logits,
                left_out=self._teacher.left_out(self._data.device),
                unlabelled=self._unlabelled_with_logits(),
            )
        return self._with_logits

    def _unlabelled_with_logits(self) -> UnlabelledGrey | None:
        more = self._data.unlabelled
        if more is None:
            return None
        logits = predict_logits(self._online_teacher(), more.grey)
        return dataclasses.replace(more, teacher_logits=logits.half())

    def _common_strides(self, student: StudentNetwork) -> list[Stride]:
        """Those of the teacher's maps of several channels that the student has too."""
        size = self._data.train.size
        maps = self._online_teacher().features(normalise(self._data.train.grey[:1]))
        given = {size // one.shape[-1] for one in maps if one.shape[1] > 1}
        strides: list[Stride] = sorted(given & set(student.map_channels))  # type: ignore[arg-type]  # powers of two
        return strides

    def _hidden_maps(self, stride: Stride | None, student: StudentNetwork) -> HiddenMaps:
        offset = None if student.centred else self._apart(stride, student)
        if (stride, offset) not in self._hidden:
            grey = self._data.train.grey
            spread = torch.linspace(0, len(grey) - 1, min(len(grey), MEASURED_IMAGES)).long()  # all labels and sources
            self._hidden[stride, offset] = HiddenMaps(
                self._online_teacher(), normalise(grey[spread]), stride=stride, offset=offset, budget=self.budget
            )
        return self._hidden[stride, offset]

    def _turn_to_views_of(self, recipe: Recipe) -> None:
        """Maps of other views than the recipe's make room where they fill it."""
        views = recipe.seed, recipe.training.batch_size
        if views != self._views:
            self.budget.make_room()
        self._views = views

    def _apart(self, stride: Stride | None, student: StudentNetwork) -> float:
        """How many cells further the teacher's maps look than the student's, by the geometry of both."""
        if stride not in self._looks:
            network, times = one_network(self._online_teacher())
            own = None if stride is None else round(stride * times)
            self._looks[stride] = offset_by_padding(network, stride=own)
        return self._looks[stride] - offset_by_padding(student, stride=stride)

    def _online_teacher(self) -> TeacherNetwork:
        if self._network is None:
            assert self._teacher is not None, "a student that is distilled has a teacher"
            self._network = self._teacher.load(self._data.device)
        return self._network


def _slow(student: StudentNetwork) -> Slow | None:
    """The encoder of a student whose encoder learns at a fraction of the rate."""
    if not isinstance(student, TimmStudent) or student.encoder_lr_factor == 1:
        return None
    return Slow(part=student.encoder, fraction=student.encoder_lr_factor)
