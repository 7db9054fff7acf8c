"""The whole study file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import Discriminator, Field, Tag, field_validator

from kdsearch.config.data import TAGS, DataConfig
from kdsearch.config.distillation import NEEDS_MASKS, DistillationSpace, DistilledPath, Loss, TermSpace
from kdsearch.config.networks import (
    PredictionsTeacher,
    StudentSpace,
    TeacherConfig,
    TeacherSection,
    UNetSpec,
    family_of,
)
from kdsearch.config.quantity import Quantity
from kdsearch.config.ranges import READING, Section, Space, training_rule, values_of
from kdsearch.config.search import SearchConfig
from kdsearch.config.sources import NAMES
from kdsearch.config.training import TrainingSpec
from kdsearch.files.home import problem_of_address

FOLDS = 5


class ConfirmConfig(Section):
    """What ``kdsearch confirm`` plans. It may change after a study has finished."""

    students: Annotated[int, Field(ge=1, le=20)] = 6
    """Maximum number of students of the front to confirm, at most one per size band (a factor of about 3 in
    parameters)."""
    folds: Annotated[int, Field(ge=2, le=20)] = FOLDS
    """Number of folds into which training and validation images are divided, by group and label. Each is scored once,
    by networks trained on the others. The locked test images are not used."""
    repetitions: Annotated[int, Field(ge=1, le=20)] = 1
    """Number of repetitions, each with other folds and seeds. One is a pilot; use three for a claim."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """A smaller student counts as equally good if it loses less Dice than this (0.02 is 2 points)."""
    leave_one_source_out: bool = False
    """Make each source a fold, to measure how students perform on sources, such as hospitals, not used in training."""
    racing: bool = False
    """After each fold, drop students that are clearly worse than one of at most their size, and their twins."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of folds and trainings."""

    @training_rule
    def _sources_are_folds_once(self) -> ConfirmConfig:
        if self.leave_one_source_out and self.folds != FOLDS:
            raise ValueError(
                "leave_one_source_out and folds cannot be combined: there is one fold per source; remove folds"
            )
        return self


SECRET = re.compile(r"pass(word|file|wd)|secret|token|api_?key|credential", re.IGNORECASE)
"""Names of URL parameters whose values must not be in a study file."""

Device = Literal["auto", "cpu", "cuda", "mps"]
Terms = Annotated[tuple[TermSpace, ...], Field(min_length=1)]


class Reference(Section):
    """A published result, drawn next to the front."""

    label: str
    """Text shown next to the point."""
    dice: Annotated[float, Field(gt=0, le=1)]
    """Its Dice, from 0 to 1."""
    params: Quantity
    """Its parameters, such as ``0.82M``."""


class StudyConfig(Section):
    """One study: data, teacher, the space of students, and the search."""

    name: Annotated[str, Field(pattern=NAMES, max_length=60)]
    """Name of the study, of its folder and of its MLflow experiment."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the sampler and of every trial; see ``search.seed_per_trial``."""
    device: Device = "auto"
    """Where networks are trained; ``auto`` uses CUDA, then MPS, then the CPU."""
    data: DataConfig = DataConfig()
    """Images and masks."""
    teacher: TeacherSection = TeacherConfig()
    """The teacher."""
    student: StudentSpace = Space[UNetSpec]()
    """The students."""
    distillation: Annotated[
        Annotated[DistillationSpace, Tag("one")] | Annotated[Terms, Tag("several")],
        Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
    ] = DistillationSpace()
    """What students learn from the teacher: a single term, or a list of terms that are added to the supervised loss."""
    training: Space[TrainingSpec] = Space[TrainingSpec]()
    """How students are trained."""
    search: SearchConfig = SearchConfig()
    """The search."""
    confirm: ConfirmConfig = ConfirmConfig()
    """How the best candidates are confirmed."""
    storage: str | None = None
    """URL of the Optuna database. Default: an SQLite file under ``.kdsearch/``."""
    tracking_uri: str | None = None
    """MLflow tracking URI. Default: ``MLFLOW_TRACKING_URI`` or ``sqlite:///mlflow/mlflow.db``."""
    replicates: Annotated[int, Field(ge=1, le=20)] = 1
    """How often to run the study, each time with the next split and seed; tables then show averages. Needs ``sampler:
    grid``, so that each run trains the same settings."""
    report_test_scores: bool = False
    """Report test-set scores instead of validation scores. The test set is then used up: do not choose students by
    it."""
    reference_points: tuple[Reference, ...] = ()
    """Published results for the chart."""
    tags: tuple[Annotated[str, Field(pattern=TAGS, max_length=60)], ...] = ()
    """Words such as ``ultrasound`` under which model hubs list a picked student; added to its model card."""

    def __reduce__(self) -> tuple[Callable[[str], StudyConfig], tuple[str]]:
        """Pickles the study as JSON, because the classes of sections with ranges are created at run time."""
        return _unpickled, (self.model_dump_json(by_alias=True, exclude_unset=True),)

    @field_validator("storage", "tracking_uri")
    @classmethod
    def _holds_no_password(cls, url: str | None) -> str | None:
        if problem := problem_of_address(url or ""):
            raise ValueError(problem)
        parts = urlsplit(url or "")
        if parts.password is not None or any(SECRET.search(name) for name in parse_qs(parts.query)):
            raise ValueError(
                "a study file must not contain a password; leave it out of the URL and put it in ~/.pgpass or in the "
                "environment (PGPASSWORD, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)"
            )
        return url

    @field_validator("search")
    @classmethod
    def _checkpoints_hold_no_password(cls, search: SearchConfig) -> SearchConfig:
        if problem := problem_of_address(search.checkpoint_url or ""):
            raise ValueError(f"checkpoint_url: {problem}")
        parts = urlsplit(search.checkpoint_url or "")
        if parts.password is not None or any(SECRET.search(name) for name in parse_qs(parts.query)):
            raise ValueError(
                "checkpoint_url: a study file must not contain a password; leave it out of the URL and set the "
                "environment variables of its provider, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        return search

    @training_rule
    def _repeats_the_same(self) -> StudyConfig:
        if self.replicates > 1 and self.search.sampler != "grid":
            raise ValueError(
                f"replicates: {self.replicates} needs search.sampler: grid, so that each one trains the same settings; "
                f"got {self.search.sampler}"
            )
        return self

    @training_rule
    def _students_can_inherit(self) -> StudyConfig:
        family = family_of(self.student)
        if self.search.start == "inherit" and family != "unet":
            raise ValueError(
                f"search.start: inherit needs student.family: unet, got {family}; remove start, or search U-Nets"
            )
        if self.search.start == "inherit" and self.replicates > 1:
            raise ValueError(
                f"search.start: inherit and replicates: {self.replicates} cannot be combined: replicates average "
                "the same settings over splits, but inherited weights depend on the split; remove one"
            )
        return self

    @training_rule
    def _unlabelled_images_are_distilled(self) -> StudyConfig:
        if self.data.unlabelled and not any(loss not in NEEDS_MASKS for loss in _losses_of(self.distillation)):
            raise ValueError(
                "data.unlabelled: images without masks are used only for distillation, but path none uses no teacher "
                f"and loss {', '.join(NEEDS_MASKS)} needs masks; search another distillation.path or loss, or remove "
                "data.unlabelled"
            )
        return self

    @training_rule
    def _teacher_can_give_it(self) -> StudyConfig:
        hidden = [one for one in _compared(self.distillation) if one not in ("none", "logits")]
        if isinstance(self.teacher, TeacherConfig):
            own, shape = self.teacher.size, self.data.shape
            if own is not None and shape[0] != shape[1]:
                raise ValueError(
                    f"teacher.size: {own} is a square, but data.size is {shape[0]}×{shape[1]}; remove teacher.size"
                )
            if hidden and own is not None and own not in [shape[0] * times for times in (1, 2, 4, 8, 16)]:
                raise ValueError(
                    f"teacher.size: must be 1, 2, 4, 8 or 16 times data.size ({shape[0]}) for path {hidden[0]}, "
                    f"so that feature maps of teacher and student align, got {own}; write {2 * shape[0]}, or "
                    "distillation.path: logits"
                )
            return self
        if hidden:
            raise ValueError(
                f"teacher.kind: {self.teacher.kind} has logits but no feature maps, which path {hidden[0]} "
                "compares; write distillation.path: logits, or use a teacher of kind network"
            )
        if isinstance(self.teacher, PredictionsTeacher) and "same" in _views(self.distillation):
            raise ValueError(
                "teacher.kind: predictions exist only for the original images, but teacher_view: same needs them for "
                "augmented ones; write teacher_view: weak, or use a teacher of kind onnx or network"
            )
        return self

    @training_rule
    def _gray_images_have_no_saturation(self) -> StudyConfig:
        teacher = self.teacher.training if isinstance(self.teacher, TeacherConfig) else None
        for section, training in (("training", self.training), ("teacher.training", teacher)):
            augmentation = getattr(training, "augmentation", None)
            if self.data.channels == 1 and getattr(augmentation, "saturation", None) is not None:
                raise ValueError(
                    f"{section}.augmentation.saturation has no effect on gray images; remove it, or set "
                    "data.channels: 3"
                )
        return self

    @training_rule
    def _device_fits_ray(self) -> StudyConfig:
        search = self.search
        gpus = search.ray.gpus_per_trial
        if search.executor == "ray" and ((self.device == "cuda" and not gpus) or (self.device == "cpu" and gpus)):
            raise ValueError(
                f"device: {self.device} and search.ray.gpus_per_trial: {gpus:g} contradict each other; on Ray, "
                "trials with GPUs train on CUDA and trials without GPUs on the CPU"
            )
        return self


def _losses_of(distillation: DistillationSpace | tuple[TermSpace, ...]) -> set[Loss]:
    """The losses of all recipes."""
    if not isinstance(distillation, DistillationSpace):
        return {getattr(term, "loss") for term in distillation}  # noqa: B009 - a space hides its settings' types
    paths: list[DistilledPath] = [path for path in values_of(distillation.path) or () if path != "none"]  # type: ignore[misc]  # as the section says
    return {loss for path in paths for loss in distillation.losses_of(path)}


def _compared(distillation: DistillationSpace | tuple[TermSpace, ...]) -> list[object]:
    """The paths of all recipes."""
    if isinstance(distillation, DistillationSpace):
        return list(values_of(distillation.path) or ())
    return [getattr(term, "path") for term in distillation]  # noqa: B009 - a space hides its settings' types


def _views(distillation: DistillationSpace | tuple[TermSpace, ...]) -> set[object]:
    """The teacher views of all recipes."""
    terms = (distillation,) if isinstance(distillation, DistillationSpace) else distillation
    return {view for term in terms for view in values_of(getattr(term, "teacher_view")) or ()}  # noqa: B009 - likewise


def _unpickled(text: str) -> StudyConfig:
    return StudyConfig.model_validate_json(text, context=READING)  # it was validated before


def replicates_of(study: StudyConfig) -> tuple[StudyConfig, ...]:
    """Returns the study and its replicates, which have the next splits and seeds and their own names."""
    return tuple(study if index == 0 else _repeated(study, index) for index in range(study.replicates))


def _repeated(study: StudyConfig, index: int) -> StudyConfig:
    split = study.data.split.model_copy(update={"seed": study.data.split.seed + index})
    return study.model_copy(
        update={
            "name": f"{study.name}.repeat-{index + 1}",
            "seed": study.seed + index,
            "data": study.data.model_copy(update={"split": split}),
        }
    )
