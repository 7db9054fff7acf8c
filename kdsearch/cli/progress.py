"""What a person watching a study wants to know, kept up to date from the driver's events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

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
from kdsearch.distill.teacher_folder import TrainedTeacher
from kdsearch.statistics.power import least_difference
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import EpochReport, Student, TrialRecord, makes_teacher, students_of, trial_of_job
from kdsearch.trials.scores import Cost
from kdsearch.workers.dispatcher import Requeued
from kdsearch.workers.jobs import CheckpointFailed, EpochEnded

SIZE_CLASSES = (("up to 10k", 10_000), ("up to 100k", 100_000), ("up to 1M", 1_000_000), ("over 1M", None))


def what_is_known(ready: DataReady) -> list[str]:
    """Lines on what the images are good for."""
    lines, part = [what_images_show(ready.lesions)], ready.materials.unlabelled
    if part is not None:
        left_out = len(part.whole.infos) - len(part.positions)
        lines.append(
            f"unlabelled {len(part.positions)} images of {', '.join(part.sources)}"
            + (f"; {left_out} that belong together with validation or test images are left out" if left_out else "")
        )
    remarks = [*ready.materials.dataset.remarks, *(part.whole.remarks if part is not None else ())]
    if said := [str(remark) for remark in remarks if not remark.quiet]:
        lines.append(f"files     {'; '.join(said)}; kdsearch data names them")
    if ready.caution:
        lines.append(f"caution   {ready.caution}")
    return lines


def what_images_show(lesions: int) -> str:
    """How far apart two students must be for the validation images to tell them apart."""
    points = 100 * least_difference(lesions)
    return (
        f"images    {lesions} with a lesion compare students; less than about {points:.1f} points of Dice apart, two "
        "are likely to pass for equal"
    )


@dataclass(slots=True)
class Running:
    """A trial that is being trained."""

    recipe: Recipe
    cost: Cost
    report: EpochReport | None = None
    failure: str = ""


@dataclass(slots=True)
class Progress:
    """The state of a study as its events tell it."""

    phase: str = "starting"
    teachers: tuple[str, ...] = ()
    """Jobs of those that are trained."""
    teacher_reports: dict[str, EpochReport] = field(default_factory=dict)
    teacher_failures: dict[str, str] = field(default_factory=dict)
    """Why a teacher has no checkpoint, if so."""
    ready: DataReady | None = None
    target: int = 0
    page: str | None = None
    """The view of the front in MLflow; None where no search was needed."""
    running: dict[int, Running] = field(default_factory=dict)
    records: dict[int, TrialRecord] = field(default_factory=dict)
    searching_since: float = 0.0
    ended_here: int = 0
    waiting: str = ""
    """Why the study waits for its storage; empty while it does not."""
    away: str = ""
    """Why MLflow does not take the record; empty while it does."""
    requeued: int = 0
    """How often a job lost its worker here."""

    def handle(self, event: DriverEvent, *, now: float) -> None:
        """Takes one event into account; ``now`` is in seconds of any clock that does not go back."""
        match event:
            case LoadingData():
                self.phase = "reading images, starting workers"
            case TrainingTeachers(jobs=jobs):
                self.teachers = jobs
            case EpochEnded(job=job, report=report) if makes_teacher(job):
                self.phase, self.teacher_reports[job] = "training the teacher", report
            case DataReady():
                self.phase, self.ready = "opening the record in MLflow", event
            case SearchStarted(records=records, target=target, page=page):
                self.phase, self.target, self.page, self.searching_since = "searching", target, page, now
                self.records |= {record.number: record for record in records}
            case JobStarted(job=job, recipe=Recipe() as recipe, cost=Cost() as cost):
                self.running[trial_of_job(job)] = Running(recipe, cost)
            case JobStarted():
                pass
            case EpochEnded(job=job, report=report):
                self.running[trial_of_job(job)].report = report
            case TrialEnded(record=record):
                self.running.pop(record.number, None)
                self.records[record.number] = record
                self.ended_here += record.outcome != "rejected"
            case _:
                self._handle_trouble(event)

    def _handle_trouble(self, trouble: Trouble) -> None:
        match trouble:
            case CheckpointFailed(job=job, reason=reason):
                self._fail_checkpoint(job, reason)
            case Requeued(job=job):
                if not makes_teacher(job):
                    self.running.pop(trial_of_job(job), None)
                self.requeued += 1
            case Waiting(reason=reason, what=what):
                self.waiting = f"{what} ({reason})"
            case Resumed():
                self.waiting = ""
            case TrackingDown(reason=reason):
                self.away = reason
            case TrackingRestored():
                self.away = ""

    def _fail_checkpoint(self, job: str, reason: str) -> None:
        if makes_teacher(job):
            self.teacher_failures[job] = reason
        else:
            self.running[trial_of_job(job)].failure = reason

    @property
    def counts(self) -> Counter[str]:
        """Ended trials by outcome."""
        return Counter(record.outcome for record in self.records.values())

    @property
    def students(self) -> tuple[Student, ...]:
        """Finished trials."""
        return students_of(tuple(self.records.values()))

    @property
    def teacher(self) -> TrainedTeacher | None:
        """The teacher, once it is there."""
        return self.ready.materials.teacher if self.ready else None

    def best_by_size(self) -> list[tuple[str, Student]]:
        """The best student of each size class that has one."""
        best: dict[str, Student] = {}
        for student in self.students:
            name = next(name for name, most in SIZE_CLASSES if most is None or student.scores.params <= most)
            if name not in best or student.scores.dice > best[name].scores.dice:
                best[name] = student
        return [(name, best[name]) for name, _ in SIZE_CLASSES if name in best]

    def seconds_left(self, *, now: float) -> float | None:
        """An estimate from the pace since the search began here; None before a trial has ended."""
        if not self.ended_here:
            return None
        counted = self.counts.total() - self.counts["rejected"]
        return (now - self.searching_since) / self.ended_here * max(0, self.target - counted)
