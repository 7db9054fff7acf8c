"""A progress bar for a search, a confirmation or a test, in terminals and notebooks."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdsearch.campaign.events import (
    DriverEvent,
    Resumed,
    SearchStarted,
    TrackingDown,
    TrackingRestored,
    TrainingTeachers,
    TrialEnded,
    Waiting,
)
from kdsearch.confirm.driver import ConfirmEvent, FoldScored, PlanFixed
from kdsearch.confirm.store import TEACHER
from kdsearch.trials.record import describe_job, makes_teacher
from kdsearch.workers.jobs import EpochEnded

Event: TypeAlias = DriverEvent | ConfirmEvent


class ProgressBar:
    """One bar, first for the teachers and then for the students; problems are printed above it.

    If no bar can be drawn, for example in a log file, a line is printed for each student.
    """

    def __init__(self, progress: Progress, *, is_drawn: bool) -> None:
        self._progress, self._is_drawn = progress, is_drawn
        self._task = progress.add_task("reading images", total=None)
        self._teachers: tuple[str, ...] = ()
        self._done = self._total = 0
        self._best: float | None = None

    def __call__(self, event: Event) -> None:
        """Shows the event."""
        match event:
            case Waiting() | TrackingDown() | Resumed() | TrackingRestored():
                self._progress.console.print(_trouble(event), highlight=False)
            case TrainingTeachers(jobs=jobs):
                self._teachers = jobs
            case EpochEnded(job=job, report=report) if makes_teacher(job):
                name = describe_job(job, self._teachers)
                self._show(f"{name}, Dice {100 * report.dice:.1f} %", done=report.epoch, total=report.epochs)
            case SearchStarted(records=records, target=target):
                self._done, self._total = 0, target
                for record in records:
                    self._count(TrialEnded(record=record))
                self._show(self._trials(), done=self._done, total=target)
            case TrialEnded(record=record):
                self._count(event)
                self._line(f"trial {record.number}: {record.scores.headline() if record.scores else record.outcome}")
                self._show(self._trials(), done=self._done, total=self._total)
            case PlanFixed(prepared=prepared, results=results):
                self._done, self._total = len(results), sum(1 for _ in prepared.plan.repeats())
                self._show("students in folds", done=self._done, total=self._total)
            case FoldScored(result=result) if result.arm != TEACHER:
                self._done += 1
                self._line(f"student {result.arm}, repetition {result.repetition + 1}, fold {result.fold + 1}: done")
                self._show("students in folds", done=self._done, total=self._total)

    def _count(self, event: TrialEnded) -> None:
        record = event.record
        self._done += record.outcome not in ("rejected", "running")
        if record.scores is not None:
            self._best = max(self._best or 0.0, record.scores.dice)

    def _trials(self) -> str:
        return "students" if self._best is None else f"students, best Dice {100 * self._best:.1f} %"

    def _show(self, text: str, *, done: int, total: int) -> None:
        self._progress.update(self._task, description=text, completed=done, total=total)

    def _line(self, text: str) -> None:
        if not self._is_drawn:
            self._progress.console.print(f"{text} ({self._done} of {self._total})", highlight=False)


def _trouble(event: Waiting | TrackingDown | Resumed | TrackingRestored) -> str:
    match event:
        case Waiting(reason=reason, what=what):
            return f"waiting: {what} ({reason})"
        case TrackingDown(reason=reason):
            return f"MLflow cannot be reached; the study continues without it ({reason})"
        case Resumed():
            return "continuing"
        case TrackingRestored():
            return "MLflow is up to date again"


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[ProgressBar]:
    """A bar that is drawn while the context lasts; a notebook needs ipywidgets for it."""
    console = console or Console()
    drawn = importlib.util.find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not drawn) as progress:
        yield ProgressBar(progress, is_drawn=drawn)
