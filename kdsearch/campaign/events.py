"""The events that the driver reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from kdsearch.distill.materials import Materials
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import TrialRecord
from kdsearch.trials.scores import Cost
from kdsearch.workers.dispatcher import Requeued
from kdsearch.workers.jobs import CheckpointFailed, EpochEnded

DATABASE_AWAY = "cannot write to the Optuna database"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadingData:
    """Images are being read from their folders or from the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """How long the search will take from now on, as far as a few training steps tell."""

    teacher_s: float
    """Seconds to train the teacher; 0 if it is cached or comes from elsewhere."""
    students_s: float
    """Seconds to train all students."""
    students: int
    """Number of trials that are still to be done."""
    workers: int
    at_most: bool
    """Whether it can be less, because students are stopped early or start from other students' weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTeachers:
    """Teachers are about to be trained."""

    jobs: tuple[str, ...]
    """In the order in which they start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReady:
    """Images are read and the teacher is trained."""

    materials: Materials
    device: str
    caution: str = ""
    """Why scores are probably optimistic; empty if there is no known reason."""

    @property
    def lesions(self) -> int:
        """Number of validation images with a lesion, on which students are compared."""
        lesion, splits = self.materials.dataset.has_foreground, self.materials.splits
        return sum(bool(lesion[position]) for position in splits.validation)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchStarted:
    """Workers are running and the study is open."""

    records: tuple[TrialRecord, ...]
    """Trials from earlier drivers."""
    target: int
    """Total number of trials."""
    page: str
    """The view of the front in MLflow, as a path on any server that serves its runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted:
    """A worker received a job: a trial, a teacher, or one network in one fold."""

    job: str
    recipe: Recipe | TeacherRecipe
    cost: Cost | None
    """None for a teacher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded:
    """A trial ended, with whatever outcome."""

    record: TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The study waits while the driver retries a failed operation."""

    reason: str
    what: str = DATABASE_AWAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """The operation succeeded, and the study continues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingDown:
    """MLflow cannot be written to; the study continues without it."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingRestored:
    """All trials are in MLflow again."""


Trouble: TypeAlias = CheckpointFailed | Requeued | Waiting | Resumed | TrackingDown | TrackingRestored
"""Problems and their ends; a ``CheckpointFailed`` with an empty reason means that checkpoints work again."""

DriverEvent: TypeAlias = (
    LoadingData
    | Estimated
    | TrainingTeachers
    | DataReady
    | SearchStarted
    | JobStarted
    | EpochEnded
    | TrialEnded
    | Trouble
)
