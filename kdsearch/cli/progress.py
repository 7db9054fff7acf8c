"""The state of a run, a confirmation or a test, kept up to date from its events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import fmean
from typing import TypeAlias

from kdsearch.campaign.events import (
    DataReady,
    DriverEvent,
    Estimated,
    JobStarted,
    LoadingData,
    Resumed,
    SearchStarted,
    TrackingDown,
    TrackingRestored,
    TrainingTeachers,
    TrialEnded,
    Waiting,
)
from kdsearch.config.quantity import format_quantity
from kdsearch.confirm.driver import ConfirmEvent, FoldScored, MemberDropped, PlanFixed
from kdsearch.confirm.plan import Plan, Repeat
from kdsearch.confirm.store import TEACHER, FoldResult
from kdsearch.report.words import path_words
from kdsearch.statistics.power import least_difference
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import (
    EpochReport,
    Student,
    TrialRecord,
    describe_job,
    makes_teacher,
    students_of,
)
from kdsearch.trials.scores import Cost
from kdsearch.workers.dispatcher import Requeued
from kdsearch.workers.jobs import CheckpointFailed, EpochEnded

Event: TypeAlias = DriverEvent | ConfirmEvent


@dataclass(slots=True)
class Training:
    """A network that is being trained."""

    network: str
    """A student's distillation path and size; empty for a teacher."""
    report: EpochReport | None = None
    problem: str = ""
    """Why it has no checkpoint; empty if it has one."""


@dataclass(slots=True)
class Progress:
    """What has been done, what is being trained and what is wrong; all times are seconds of one monotonic clock."""

    phase: str = "starting"
    teachers: tuple[str, ...] = ()
    """Jobs of the teachers that are trained together."""
    running: dict[str, Training] = field(default_factory=dict)
    """By job."""
    ready: DataReady | None = None
    since: float = 0.0
    """When the trainings of students began."""
    ended_here: int = 0
    """Trainings of students that ended since then."""
    waiting: str = ""
    """What the study waits for; empty if it does not wait."""
    away: str = ""
    """Why MLflow cannot be written to; empty if it can."""
    lost: int = 0
    """How often a worker died and its job was started again."""

    estimate: Estimated | None = None
    """How long the search will take, before the first student has ended; None if unknown."""
    target: int = 0
    """Trials of the search in total."""
    page: str | None = None
    """The view of the front in MLflow; None if there was nothing to search."""
    records: dict[int, TrialRecord] = field(default_factory=dict)

    plan: Plan | None = None
    """Of a confirmation or a test; None in a search."""
    seconds: float = 0.0
    """Estimated beforehand for the whole plan."""
    results: dict[tuple[str, int, int], FoldResult] = field(default_factory=dict)
    """By network, repetition and fold."""
    dropped: set[str] = field(default_factory=set)

    def handle(self, event: Event, *, now: float) -> None:
        """Updates the state."""
        self._handle_phase(event, now=now)
        self._handle_training(event)
        self._handle_trouble(event)

    def _handle_phase(self, event: Event, *, now: float) -> None:
        match event:
            case LoadingData():
                self.phase = "reading images, starting workers"
            case Estimated():
                self.estimate = event
            case TrainingTeachers(jobs=jobs):
                self.teachers = jobs
            case DataReady():
                self.phase, self.ready, self.running = "opening MLflow", event, {}
            case SearchStarted(records=records, target=target, page=page):
                self.phase, self.target, self.page, self.since = "searching", target, page, now
                self.records |= {record.number: record for record in records}
            case PlanFixed(prepared=prepared, results=results):
                self.phase, self.plan, self.seconds, self.since = "confirming", prepared.plan, prepared.seconds, now
                self.results = {(one.arm, one.repetition, one.fold): one for one in results}

    def _handle_training(self, event: Event) -> None:
        match event:
            case JobStarted(job=job, recipe=Recipe() as recipe, cost=Cost() as cost):
                self.running[job] = Training(f"{path_words(recipe.path)}, {format_quantity(cost.params)} params")
            case JobStarted(job=job):
                self.running[job] = Training("")
            case EpochEnded(job=job, report=report):
                self._progress(job, report)
            case TrialEnded(record=record):
                self.running.pop(record.job, None)
                self.records[record.number] = record
                self.ended_here += record.outcome != "rejected"
            case FoldScored(result=result):
                self._score(result)
            case MemberDropped(arm=arm):
                self.dropped.add(arm)

    def _handle_trouble(self, event: Event) -> None:
        match event:
            case CheckpointFailed(job=job, reason=reason) if reason or job in self.running:
                self.running.setdefault(job, Training("")).problem = reason
            case Requeued(job=job):
                self.running.pop(job, None)
                self.lost += 1
            case Waiting(reason=reason, what=what):
                self.waiting = f"{what} ({reason})"
            case Resumed():
                self.waiting = ""
            case TrackingDown(reason=reason):
                self.away = reason
            case TrackingRestored():
                self.away = ""

    def _progress(self, job: str, report: EpochReport) -> None:
        if makes_teacher(job) and self.plan is None:
            self.phase = "training the teacher"
        self.running.setdefault(job, Training("")).report = report
        if self.plan is not None and report.epoch >= report.epochs:
            del self.running[job]

    def _score(self, result: FoldResult) -> None:
        if result.arm == TEACHER or self.plan is None:
            return
        self.results[result.arm, result.repetition, result.fold] = result
        self.ended_here += 1
        repeat = Repeat(arm=self.plan.arm(result.arm), repetition=result.repetition, fold=result.fold)
        self.running.pop(self.plan.job(repeat), None)  # a training that failed before its last epoch

    def name_of(self, job: str) -> str:
        """``trial 7``, or ``teacher 2 of 5``."""
        return describe_job(job, self.teachers)

    @property
    def counts(self) -> Counter[str]:
        """Ended trials by outcome."""
        return Counter(record.outcome for record in self.records.values())

    @property
    def students(self) -> tuple[Student, ...]:
        """The search's finished students."""
        return students_of(tuple(self.records.values()))

    @property
    def done(self) -> int:
        """Trainings of students that have ended; rejected trials were not trained."""
        return len(self.results) if self.plan is not None else self.counts.total() - self.counts["rejected"]

    @property
    def total(self) -> int:
        """Trainings of students, done and still to do."""
        if self.plan is None:
            return self.target
        skipped = sum(
            repeat.arm.id in self.dropped and (repeat.arm.id, repeat.repetition, repeat.fold) not in self.results
            for repeat in self.plan.repeats()
        )
        return sum(1 for _ in self.plan.repeats()) - skipped

    def seconds_left(self, *, now: float) -> float | None:
        """From the pace so far; before that from the estimate, if there is one."""
        left = max(0, self.total - self.done)
        if self.ended_here:
            return (now - self.since) / self.ended_here * left
        if self.plan is not None:
            return self.seconds * left / max(1, self.total)
        return None if self.estimate is None else max(0.0, self.estimate.students_s - (now - self.since))

    def mean_dice(self, arm: str) -> float | None:
        """Of one network over the folds so far, at training resolution."""
        dice = [one.scores.dice for one in self.results.values() if one.arm == arm and one.scores is not None]
        return fmean(dice) if dice else None

    def folds_done(self, arm: str) -> int:
        """Of one network, over all repetitions."""
        return sum(one.arm == arm for one in self.results.values())


def facts_about_images(ready: DataReady) -> list[str]:
    """Lines about the images: how small a difference they can show, how many are unlabelled, what was left out."""
    lines, part = [noise_of(ready.lesions)], ready.materials.unlabelled
    if part is not None:
        left_out = len(part.whole.infos) - len(part.positions)
        lines.append(
            f"unlabelled {len(part.positions)} images from {', '.join(part.sources)}"
            + (f"; {left_out} that belong to validation or test images are left out" if left_out else "")
        )
    remarks = [*ready.materials.dataset.remarks, *(part.whole.remarks if part is not None else ())]
    if said := [str(remark) for remark in remarks if not remark.quiet]:
        lines.append(f"files     {'; '.join(said)}; kdsearch data lists them")
    if ready.caution:
        lines.append(f"warning   {ready.caution}")
    return lines


def noise_of(lesions: int) -> str:
    """Which differences of Dice so many validation images cannot show."""
    points = 100 * least_difference(lesions)
    return (
        f"images    {lesions} validation images with a lesion: differences below about {points:.1f} Dice points are "
        "within noise"
    )


def time_of(estimate: Estimated) -> str:
    """How long a search takes, in words."""
    what = f"{'the teacher and ' * (estimate.teacher_s > 0)}{estimate.students} students, {estimate.workers} at a time"
    total = duration(estimate.teacher_s + estimate.students_s)
    return f"{'at most ' * estimate.at_most}about {total} for {what}"


def duration(seconds: float) -> str:
    """``1 h 05 min``, ``12 min`` or ``40 s``."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min" if minutes else f"{round(seconds)} s"
