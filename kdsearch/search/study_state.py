"""The state of a study as its driver knows it: which trials ended, which run, how many are still to come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kdsearch.search.pruners.learning_curve import LearningCurve
from kdsearch.trials.curve import EpochReport
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import Student, TrialRecord, students_of
from kdsearch.trials.scores import Cost


@dataclass(slots=True, kw_only=True)
class Running:
    """A trial that has a worker."""

    recipe: Recipe
    cost: Cost
    curve: list[EpochReport] = field(default_factory=list)


class StudyState:
    """Every trial of the study, kept in memory so that nothing is read from the storage twice."""

    def __init__(self, records: Iterable[TrialRecord], *, target: int) -> None:
        """``target`` is how many trials there are to be, rejected ones not counted."""
        known = list(records)
        self._ended = {record.number: record for record in known if record.outcome != "running"}
        self._lost = {record.number: record.lost for record in known if record.lost}
        self._running: dict[int, Running] = {}
        self._target = target

    @property
    def counted(self) -> int:
        """Trials that ended, rejected ones aside, and those that run."""
        return sum(record.outcome != "rejected" for record in self._ended.values()) + len(self._running)

    @property
    def remaining(self) -> int:
        """Trials that have neither begun nor ended."""
        return max(0, self._target - self.counted)

    @property
    def running(self) -> int:
        """Trials that have a worker."""
        return len(self._running)

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """Ended trials by number."""
        return tuple(self._ended[number] for number in sorted(self._ended))

    @property
    def students(self) -> tuple[Student, ...]:
        """Finished trials by number."""
        return students_of(self.records)

    def is_running(self, number: int) -> bool:
        """Whether the trial has a worker."""
        return number in self._running

    def begin(self, number: int, recipe: Recipe, cost: Cost) -> None:
        """A trial begins, or begins again."""
        self._running[number] = Running(recipe=recipe, cost=cost)

    def report(self, number: int, report: EpochReport) -> None:
        """A running trial finished an epoch."""
        self._running[number].curve.append(report)

    def run_of(self, number: int) -> Running:
        """A running trial."""
        return self._running[number]

    def curve(self, number: int) -> tuple[EpochReport, ...]:
        """A running trial's reports so far."""
        return tuple(self._running[number].curve)

    def lose(self, number: int, reason: str) -> tuple[str, ...]:
        """A trial's worker was lost; returns how all its workers were."""
        self._running.pop(number)
        self._lost[number] = (*self._lost.get(number, ()), reason)
        return self._lost[number]

    def end(self, record: TrialRecord) -> None:
        """A trial ended."""
        self._running.pop(record.number, None)
        self._ended[record.number] = record

    def learning_curve(self, number: int) -> LearningCurve:
        """A running trial as a pruner sees it."""
        run = self._running[number]
        return LearningCurve(
            number=number,
            params=run.cost.params,
            macs=run.cost.macs,
            dice=tuple(report.dice for report in run.curve),
            epochs=run.recipe.training.epochs,
            finished=False,
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
    )
