"""A confirmation's progress, live in a terminal or as plain lines."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import fmean
from typing import Self, get_args

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdsearch.campaign.events import DriverEvent, JobStarted, LoadingData, TrainingTeachers, Trouble
from kdsearch.cli.live import BAR_WIDTH, duration
from kdsearch.cli.plain import describe_trouble
from kdsearch.config.quantity import format_quantity
from kdsearch.confirm.driver import ConfirmEvent, FoldScored, MemberDropped, PlanFixed
from kdsearch.confirm.plan import Plan, Repeat
from kdsearch.confirm.store import TEACHER, FoldResult
from kdsearch.trials.record import EpochReport, describe_job, makes_teacher
from kdsearch.workers.dispatcher import Requeued
from kdsearch.workers.jobs import CheckpointFailed, EpochEnded

TROUBLES = get_args(Trouble)
EVERY = 10
"""Epochs of a teacher between two plain lines."""


@dataclass(slots=True)
class ConfirmProgress:
    """The state of a confirmation as its events tell it."""

    teachers: tuple[str, ...] = ()
    """Jobs of the folds' teachers that are trained."""
    plan: Plan | None = None
    seconds: float = 0.0
    """As estimated beforehand, for all of it."""
    results: dict[tuple[str, int, int], FoldResult] = field(default_factory=dict)
    running: dict[str, EpochReport] = field(default_factory=dict)
    """By what is told of a job."""
    dropped: set[str] = field(default_factory=set)
    trouble: str = ""
    since: float = 0.0
    done_before: int = 0

    def handle(self, event: DriverEvent | ConfirmEvent, *, now: float) -> None:
        """Takes one event into account; ``now`` in seconds of any clock that does not go back."""
        match event:
            case PlanFixed(prepared=prepared, results=results):
                self.plan, self.seconds, self.since = prepared.plan, prepared.seconds, now
                self.results = {(one.arm, one.repetition, one.fold): one for one in results}
                self.done_before = len(self.results)
            case TrainingTeachers(jobs=jobs):
                self.teachers = jobs
            case EpochEnded(job=job, report=report):
                self.running[job] = report
                if report.epoch >= report.epochs:
                    del self.running[job]
            case FoldScored(result=result):
                if result.arm != TEACHER:
                    self.results[result.arm, result.repetition, result.fold] = result
                    self.running.pop(self._job_of(result), None)  # where it failed on its way
            case MemberDropped(arm=arm):
                self.dropped.add(arm)
            case JobStarted():
                pass
            case Requeued(job=job):
                self.running.pop(job, None)
            case _:
                self.trouble = describe_trouble(event, self.teachers) if isinstance(event, TROUBLES) else ""

    def _job_of(self, result: FoldResult) -> str:
        assert self.plan is not None, "a result is of a sealed plan"
        arm = self.plan.arm(result.arm)
        return self.plan.job(Repeat(arm=arm, repetition=result.repetition, fold=result.fold))

    @property
    def total(self) -> int:
        """Trainings of arms that are still planned, or done."""
        if self.plan is None:
            return 0
        dropped = sum(
            repeat.arm.id in self.dropped and (repeat.arm.id, repeat.repetition, repeat.fold) not in self.results
            for repeat in self.plan.repeats()
        )
        return sum(1 for _ in self.plan.repeats()) - dropped

    def seconds_left(self, *, now: float) -> float:
        """By the pace of what was done here; by what the search took before that."""
        left, here = self.total - len(self.results), len(self.results) - self.done_before
        if here:
            return (now - self.since) / here * left
        return self.seconds * left / max(1, self.total)

    def mean_dice(self, arm: str) -> float | None:
        """Of the folds so far, at the study's size."""
        dice = [one.scores.dice for one in self.results.values() if one.arm == arm and one.scores is not None]
        return fmean(dice) if dice else None

    def count(self, arm: str) -> int:
        """Folds that are done."""
        return sum(one.arm == arm for one in self.results.values())


class ConfirmView:
    """Shows the events; used as a context."""

    def __init__(self, console: Console) -> None:
        self.progress = ConfirmProgress()
        self._console = console
        live = Live(console=console, refresh_per_second=4, get_renderable=self._render)
        self._live = live if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, event: DriverEvent | ConfirmEvent) -> None:
        """Takes an event into the picture, or prints its line."""
        self.progress.handle(event, now=time.monotonic())
        line = describe(event, self.progress) if self._live is None else ""
        if line:
            self._console.print(line, soft_wrap=True, highlight=False)

    def _render(self) -> RenderableType:
        return render(self.progress, now=time.monotonic())


def describe(event: DriverEvent | ConfirmEvent, progress: ConfirmProgress) -> str:
    """One line for the event; empty where it is not worth one."""
    match event:
        case LoadingData():
            return "reading images"
        case EpochEnded(job=job, report=report) if makes_teacher(job) and report.epoch % EVERY == 0:
            return f"{describe_job(job, progress.teachers)} for the folds: epoch {report.epoch}/{report.epochs}"
        case FoldScored(result=result):
            return f"{_name(result, progress)}: {_outcome(result)} ({len(progress.results)} of {progress.total})"
        case MemberDropped(arm=arm, reason=reason):
            return f"dropped {arm}: {reason}"
        case JobStarted():
            return ""
        case Requeued() | CheckpointFailed():
            return describe_trouble(event, progress.teachers)
        case _:
            return describe_trouble(event, progress.teachers) if isinstance(event, TROUBLES) else ""


def _name(result: FoldResult, progress: ConfirmProgress) -> str:
    plan = progress.plan
    assert plan is not None, "a result is of a sealed plan"
    place = f"repetition {result.repetition + 1}, fold {result.fold + 1}"
    if plan.kind == "test":
        place = f"seed {plan.seeds[result.repetition][result.fold]}"
    return f"teacher of {place}" if result.arm == TEACHER else f"{plan.arm(result.arm).name}, {place}"


def _outcome(result: FoldResult) -> str:
    return f"failed, {result.reason}" if result.scores is None else f"Dice {100 * result.scores.dice:.1f} %"


def render(progress: ConfirmProgress, *, now: float) -> RenderableType:
    """The whole picture."""
    if progress.plan is None:
        return Text("reading images, sealing the plan …")
    left = duration(progress.seconds_left(now=now))
    head = f"trainings {len(progress.results)} of {progress.total} done · about {left} left"
    trouble = [Text(progress.trouble, style="yellow")] if progress.trouble else []
    return Group(Text(head, style="bold"), *trouble, _running(progress), _arms(progress, progress.plan))


def _running(progress: ConfirmProgress) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for job, report in sorted(progress.running.items()):
        bar = ProgressBar(total=report.epochs, completed=report.epoch, width=BAR_WIDTH)
        table.add_row(describe_job(job, progress.teachers), bar, f"{report.epoch}/{report.epochs}")
    return table


def _arms(progress: ConfirmProgress, plan: Plan) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    folds = sum(len(folds) for folds in plan.partitions)
    for arm in plan.arms:
        dice = progress.mean_dice(arm.id)
        table.add_row(
            arm.name,
            f"{format_quantity(arm.params)} params",
            "dropped" if arm.id in progress.dropped else f"{progress.count(arm.id)}/{folds}",
            "" if dice is None else f"Dice {100 * dice:.1f} %",
        )
    return table
