"""A study's progress as plain lines, for logs and pipes."""

from __future__ import annotations

import time
from typing import Self

from kdsearch.campaign.events import (
    DataReady,
    DriverEvent,
    JobStarted,
    LoadingData,
    Resumed,
    SearchStarted,
    TrackingDown,
    TrackingRestored,
    TrainingTeachers,
    TrialEnded,
    Trouble,
    Waiting,
)
from kdsearch.cli.progress import Progress, what_is_known
from kdsearch.config.quantity import format_quantity
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import TrialRecord, describe_job, makes_teacher, trial_of_job
from kdsearch.trials.scores import Cost
from kdsearch.workers.dispatcher import Requeued
from kdsearch.workers.jobs import CheckpointFailed, EpochEnded


class PlainView:
    """Prints a line for each event worth one; used as a context."""

    def __init__(self) -> None:
        self.progress = Progress()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, event: DriverEvent) -> None:
        """Prints the event."""
        self.progress.handle(event, now=time.monotonic())
        line = describe(event, self.progress)
        if line:
            print(line, flush=True)


def describe(event: DriverEvent, progress: Progress) -> str:
    """One line for the event; empty where it is not worth one."""
    match event:
        case LoadingData():
            return "reading images"
        case EpochEnded(job=job, report=report):
            name = describe_job(job, progress.teachers)
            shown = f"{name}: epoch {report.epoch}/{report.epochs}, Dice {100 * report.dice:.1f} %"
            return shown if makes_teacher(job) else ""
        case DataReady(materials=materials):
            return "\n".join([f"teacher: {materials.teacher.headline()}", *what_is_known(event)])
        case SearchStarted(records=records, target=target):
            done = sum(record.outcome != "rejected" for record in records)
            return f"searching: {done} of {target} trials are done"
        case JobStarted(job=job, recipe=Recipe() as recipe, cost=Cost(params=params)):
            begun = "" if recipe.start is None else f", with weights of trial {recipe.start.donor}"
            return f"trial {trial_of_job(job)}: started, path {recipe.path}, {format_quantity(params)} params{begun}"
        case TrialEnded(record=record):
            done = progress.counts.total() - progress.counts["rejected"]
            return f"{_ended(record)} ({done} of {progress.target})"
        case TrainingTeachers() | JobStarted():
            return ""
        case _:
            return describe_trouble(event, progress.teachers)


def describe_trouble(event: Trouble, teachers: tuple[str, ...] = ()) -> str:
    """One line for what went wrong, or is right again; ``teachers`` are the jobs of those that are trained together."""
    match event:
        case CheckpointFailed(job=job, reason=reason):
            return f"{describe_job(job, teachers)}: " + (
                f"continues with {reason}" if reason else "has a checkpoint again"
            )
        case Requeued(job=job, reason=reason, attempt=attempt, retries=retries):
            return f"{describe_job(job, teachers)}: {reason}; resumes with another worker ({attempt} of {retries})"
        case Waiting(reason=reason, what=what):
            return f"waiting: {what} ({reason}); trying again, nothing is lost"
        case Resumed():
            return "continuing: what was waited for is there"
        case TrackingDown(reason=reason):
            return f"MLflow does not take the record ({reason}); the study continues, kdsearch sync makes up for it"
        case TrackingRestored():
            return "MLflow takes the record again"


def _ended(record: TrialRecord) -> str:
    if record.scores is None:
        return f"trial {record.number}: {record.outcome}, {record.reason}"
    return (
        f"trial {record.number}: Dice {100 * record.scores.dice:.1f} %, {format_quantity(record.scores.params)} params"
    )
