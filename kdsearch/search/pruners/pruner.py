"""A trial as a pruner sees it, what a pruner is, and the one that stops nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kdsearch.models.families import cost_of
from kdsearch.trials.record import EpochReport, TrialRecord, trial_of_job
from kdsearch.trials.scores import Cost
from kdsearch.workers.jobs import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """One trial's way so far."""

    number: int
    params: int
    macs: int
    dice: tuple[float, ...]
    """Validation Dice after each epoch, 0-1."""
    epochs: int
    """Most epochs there can be."""
    finished: bool
    """Whether it was trained to its end."""
    inherited: bool = False
    """Whether it began with another student's weights."""

    @property
    def best(self) -> float:
        """The best Dice so far; what counts in the end, because the best epoch's weights are kept."""
        return max(self.dice)

    def until(self, epoch: int) -> float:
        """The best Dice of the first epochs."""
        return max(self.dice[:epoch])

    def no_larger_than(self, other: LearningCurve) -> bool:
        """Neither in parameters nor in multiply-adds."""
        return self.params <= other.params and self.macs <= other.macs


class Pruner(Protocol):
    """Decides, after each epoch of a trial, whether it stops."""

    def observe(self, curve: LearningCurve) -> None:
        """Takes notice of a trial, in the place of what was known of it."""
        ...

    def stops(self, curve: LearningCurve) -> str:
        """Why the trial stops after its last epoch so far; empty where it continues."""
        ...


class NoPruner:
    """Lets every trial train to its end."""

    def observe(self, curve: LearningCurve) -> None:
        """Takes no notice."""

    def stops(self, curve: LearningCurve) -> str:  # noqa: ARG002 - the contract's name
        """Never."""
        return ""


class ByStart:
    """A pruner for students that began cold and one for those that inherited, which learn on other curves."""

    def __init__(self, build: Callable[[], Pruner]) -> None:
        self._pruners = {inherited: build() for inherited in (False, True)}

    def observe(self, curve: LearningCurve) -> None:
        """Takes notice of a trial, among those that began as it did."""
        self._pruners[curve.inherited].observe(curve)

    def stops(self, curve: LearningCurve) -> str:
        """What the pruner of those says that began as the trial did."""
        return self._pruners[curve.inherited].stops(curve)


def cost_of_job(job: Job, *, size: int) -> Cost:
    """Of the student that the job makes, for images of that size."""
    return cost_of(job.student.student, size=size)


def curve_of_job(job: Job, curve: tuple[EpochReport, ...], *, size: int) -> LearningCurve:
    """A running trial as a pruner sees it."""
    cost = cost_of_job(job, size=size)
    return LearningCurve(
        number=trial_of_job(job.id),
        params=cost.params,
        macs=cost.macs,
        dice=tuple(report.dice for report in curve),
        epochs=job.student.training.epochs,
        finished=False,
        inherited=job.student.start is not None,
    )


def learning_curve_of(record: TrialRecord) -> LearningCurve | None:
    """An ended trial as a pruner sees it; None where it never trained an epoch."""
    cost = record.scores or record.cost
    if cost is None or record.recipe is None or not record.curve:
        return None
    return LearningCurve(
        number=record.number,
        params=cost.params,
        macs=cost.macs,
        dice=tuple(report.dice for report in record.curve),
        epochs=record.recipe.training.epochs,
        finished=record.outcome == "finished",
        inherited=record.recipe.start is not None,
    )
