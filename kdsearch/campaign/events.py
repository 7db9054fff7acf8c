"""The events by which a driver reports what happens."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadingData:
    """Images are being read, or found in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTeachers:
    """Teachers are about to be trained."""

    jobs: tuple[str, ...]
    """In the order in which they begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReady:
    """Images are read and the teacher is trained."""

    materials: Materials
    device: str
    caution: str = ""
    """Why scores are probably too good, if something is known against them."""

    @property
    def lesions(self) -> int:
        """Validation images with a lesion, by which students are compared."""
        lesion, splits = self.materials.dataset.has_lesion, self.materials.splits
        return sum(bool(lesion[position]) for position in splits.validation)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchStarted:
    """Workers are up and the record is open."""

    records: tuple[TrialRecord, ...]
    """What former drivers left."""
    target: int
    """Trials in all."""
    page: str
    """The view of the front in MLflow, as a path on any server of the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted:
    """A worker was given a job: a trial, a teacher, or a network in a fold."""

    job: str
    recipe: Recipe | TeacherRecipe
    cost: Cost | None
    """None for a teacher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded:
    """A trial ended, one way or another."""

    record: TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Something must be there before the study continues; the driver tries again until it is."""

    reason: str
    what: str = "the storage does not take the study"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """What was waited for is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingDown:
    """MLflow does not take the record; the study continues without it."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingRestored:
    """MLflow is level with the study again."""


Trouble: TypeAlias = CheckpointFailed | Requeued | Waiting | Resumed | TrackingDown | TrackingRestored
"""What went wrong and what becomes of it; a checkpoint that failed for no reason is one that is there again."""

DriverEvent: TypeAlias = (
    LoadingData | TrainingTeachers | DataReady | SearchStarted | JobStarted | EpochEnded | TrialEnded | Trouble
)
