"""Shows how a run, a confirmation or a test proceeds: redrawn in a terminal, line by line in a log."""

from __future__ import annotations

import logging
import time
from typing import Self, assert_never

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdsearch.campaign.events import (
    DataReady,
    Estimated,
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
from kdsearch.cli.progress import Event, Progress, duration, facts_about_images, time_of
from kdsearch.cli.terminal import say
from kdsearch.config.quantity import format_quantity
from kdsearch.confirm.driver import FoldScored, MemberDropped, PlanFixed
from kdsearch.confirm.plan import Plan
from kdsearch.confirm.store import TEACHER, FoldResult
from kdsearch.report.words import best_by_size, path_words
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import EpochReport, TrialRecord, makes_teacher
from kdsearch.trials.scores import Cost
from kdsearch.workers.dispatcher import Requeued
from kdsearch.workers.jobs import CheckpointFailed, EpochEnded

logger = logging.getLogger(__name__)
BAR_WIDTH = 24
EVERY = 10
"""Epochs of a teacher between two lines of a log."""


class View:
    """Shows the events it is given; used as a context manager. A quiet one only keeps the state."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.progress = Progress()
        self._console = console
        self._quiet = quiet
        self._live = None
        if console.is_terminal and not quiet:
            self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, event: Event) -> None:
        """Redraws the view, or prints the event's line."""
        self.progress.handle(event, now=time.monotonic())
        if isinstance(event, EpochEnded):
            logger.debug("%s: %s", self.progress.name_of(event.job), event.report)
        if self._live is None and not self._quiet and (line := describe(event, self.progress)):
            say(self._console, line)

    def _render(self) -> RenderableType:
        return render(self.progress, now=time.monotonic())


def render(progress: Progress, *, now: float) -> RenderableType:
    """The whole view: what is known, how far it is, what is wrong, what is being trained, what is best."""
    parts = [_head(progress), *_troubles(progress), _running(progress)]
    if progress.plan is not None:
        return Group(_counts(progress, now=now), *parts, _networks(progress, progress.plan))
    if progress.phase != "searching":
        return Group(*parts)
    head, *rest = parts
    return Group(head, _images(progress), _counts(progress, now=now), *rest, _best(progress))


def _head(progress: Progress) -> RenderableType:
    if progress.plan is not None:
        return Text()
    if progress.ready is None:
        time = "" if progress.estimate is None else f"time      {time_of(progress.estimate)}\n"
        return Text(f"{time}{progress.phase} …")
    line = f"teacher   {progress.ready.materials.teacher.headline()}"
    return Text(line if progress.phase == "searching" else f"{line}; {progress.phase} …")


def _images(progress: Progress) -> RenderableType:
    return Text("" if progress.ready is None else "\n".join(facts_about_images(progress.ready)), style="dim")


def _counts(progress: Progress, *, now: float) -> RenderableType:
    left = progress.seconds_left(now=now)
    time_left = f" · about {duration(left)} left" if left else ""
    done = f"{progress.done} of {progress.total} done"
    if progress.plan is not None:
        return Text(f"trainings {done}{time_left}", style="bold")
    counts = progress.counts
    parts = [f"{counts[outcome]} {words}" for outcome, words in OUTCOMES if counts[outcome]]
    return Text(f"trials    {', '.join([done, *parts])}{time_left}", style="bold")


OUTCOMES = (("stopped", "stopped early"), ("failed", "failed"), ("rejected", "rejected before training"))


def _troubles(progress: Progress) -> list[RenderableType]:
    """What is wrong at present, and what happens next."""
    lines = []
    if progress.waiting:
        lines.append(f"waiting   {progress.waiting}; retrying, nothing is lost")
    if progress.away:
        lines.append(f"MLflow    {_cannot_write(progress.away)}")
    if progress.lost:
        lines.append(f"workers   {progress.lost} died; other workers resumed their work")
    return [Text(line, style="yellow") for line in lines]


def _running(progress: Progress) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for job, training in sorted(progress.running.items()):
        report = training.report
        bar = ProgressBar(
            total=report.epochs if report else 1, completed=report.epoch if report else 0, width=BAR_WIDTH
        )
        epoch, dice = (f"{report.epoch}/{report.epochs}", f"Dice {100 * report.dice:.1f} %") if report else ("", "")
        table.add_row(progress.name_of(job), training.network, bar, epoch, dice, training.problem)
    return table


def _best(progress: Progress) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for size, student in best_by_size(progress.students):
        scores, path = student.scores, path_words(student.recipe.path)
        figures = (f"Dice {100 * scores.dice:.1f} %", f"{format_quantity(scores.params)} params")
        table.add_row(f"best {size}", f"trial {student.number}", *figures, path)
    return table


def _networks(progress: Progress, plan: Plan) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    folds = sum(len(folds) for folds in plan.partitions)
    for arm in plan.arms:
        dice = progress.mean_dice(arm.id)
        table.add_row(
            arm.name,
            f"{format_quantity(arm.params)} params",
            "dropped" if arm.id in progress.dropped else f"{progress.folds_done(arm.id)}/{folds}",
            "" if dice is None else f"Dice {100 * dice:.1f} %",
        )
    return table


def describe(event: Event, progress: Progress) -> str:
    """One line for a log; empty if the event needs none."""
    line = ""
    match event:
        case LoadingData() | Estimated() | DataReady():
            line = _beginning(event)
        case EpochEnded(job=job, report=report) if makes_teacher(job):
            line = _epoch(progress.name_of(job), report)
        case SearchStarted(target=target):
            line = f"searching: {progress.done} of {target} trials are done"
        case JobStarted(job=job, recipe=Recipe() as recipe, cost=Cost(params=params)) if progress.plan is None:
            parent = "" if recipe.start is None else f", with weights of trial {recipe.start.donor}"
            line = (
                f"{progress.name_of(job)}: started, {path_words(recipe.path)}, {format_quantity(params)} params{parent}"
            )
        case TrialEnded(record=record):
            line = f"{_ended(record)} ({progress.done} of {progress.total})"
        case FoldScored(result=result):
            line = f"{_scored(result, progress)} ({progress.done} of {progress.total})"
        case MemberDropped(arm=arm, reason=reason):
            line = f"dropped trial {arm}: {reason}"
        case TrainingTeachers() | PlanFixed() | EpochEnded() | JobStarted():
            pass
        case _:
            line = describe_trouble(event, progress)
    return line


def _beginning(event: LoadingData | Estimated | DataReady) -> str:
    match event:
        case LoadingData():
            return "reading images"
        case Estimated():
            return f"time      {time_of(event)}"
        case DataReady(materials=materials):
            return "\n".join([f"teacher   {materials.teacher.headline()}", *facts_about_images(event)])


def _epoch(name: str, report: EpochReport) -> str:
    due = report.epoch % EVERY == 0 or report.epoch == report.epochs
    return f"{name}: epoch {report.epoch}/{report.epochs}, Dice {100 * report.dice:.1f} %" if due else ""


def describe_trouble(event: Trouble, progress: Progress) -> str:
    """One line about a problem, or about its end."""
    match event:
        case CheckpointFailed(job=job, reason=reason):
            return f"{progress.name_of(job)}: " + (f"continues with {reason}" if reason else "has a checkpoint again")
        case Requeued(job=job, reason=reason, attempt=attempt, retries=retries):
            return f"{progress.name_of(job)}: {reason}; another worker resumes it (retry {attempt} of {retries})"
        case Waiting(reason=reason, what=what):
            return f"waiting: {what} ({reason}); retrying, nothing is lost"
        case Resumed():
            return "the wait is over; continuing"
        case TrackingDown(reason=reason):
            return f"MLflow: {_cannot_write(reason)}"
        case TrackingRestored():
            return "MLflow: writing again"
        case _:
            assert_never(event)


def _cannot_write(reason: str) -> str:
    return f"cannot be written to ({reason}); the study continues, kdsearch sync uploads the rest later"


def _ended(record: TrialRecord) -> str:
    if record.scores is None:
        return f"trial {record.number}: {record.outcome}, {record.reason}"
    params = format_quantity(record.scores.params)
    return f"trial {record.number}: Dice {100 * record.scores.dice:.1f} %, {params} params"


def _scored(result: FoldResult, progress: Progress) -> str:
    plan = progress.plan
    assert plan is not None, "results belong to a fixed plan"
    fold = f"repetition {result.repetition + 1}, fold {result.fold + 1}"
    if plan.kind == "test":
        fold = f"seed {plan.seeds[result.repetition][result.fold]}"
    name = f"teacher of {fold}" if result.arm == TEACHER else f"{plan.arm(result.arm).name}, {fold}"
    outcome = f"failed, {result.reason}" if result.scores is None else f"Dice {100 * result.scores.dice:.1f} %"
    return f"{name}: {outcome}"
