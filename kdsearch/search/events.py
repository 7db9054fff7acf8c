"""What the driver tells whoever watches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from kdsearch.config.recipe import Recipe
from kdsearch.data.dataset import Dataset, Splits
from kdsearch.distill.record import TrialRecord
from kdsearch.distill.report import EpochReport
from kdsearch.distill.teacher import TrainedTeacher
from kdsearch.measure.counts import Cost
from kdsearch.search.executors.tasks import Progressed


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Images are being read, or found in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherProgress:
    """The teacher finished an epoch."""

    report: EpochReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Data and teacher are there."""

    dataset: Dataset
    splits: Splits
    teacher: TrainedTeacher
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Searching:
    """Workers are up and the record is open."""

    records: tuple[TrialRecord, ...]
    """What former drivers left."""
    target: int
    """Trials in all."""
    experiment_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A trial began."""

    number: int
    recipe: Recipe
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A trial ended, one way or another."""

    record: TrialRecord


DriverEvent: TypeAlias = Reading | TeacherProgress | Prepared | Searching | Started | Progressed | Ended
