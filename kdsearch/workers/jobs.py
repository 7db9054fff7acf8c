"""Jobs and what workers report of them: all that passes between a driver and its executors."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from kdsearch.config.networks import StudentSpec
from kdsearch.distill.checkpoint import Checkpoint
from kdsearch.distill.loop import reporting_memory
from kdsearch.distill.materials import Materials, Place, Trainers
from kdsearch.distill.result import CheckpointAway, Kept, OutOfMemory, Trained, TrainingFailed
from kdsearch.distill.student import Donor, Trainer
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.errors import KdsearchError
from kdsearch.measure.latency import cores
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import EpochReport
from kdsearch.trials.scores import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one worker computes with."""

    device: str
    threads: int
    """Of torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One student or teacher to make."""

    id: str
    """Names the job in events, and its files; what it stands for is known to whoever submits it."""
    recipe: Recipe | TeacherRecipe
    materials: Place
    checkpoint: str
    """Where its state lies while it runs: a path or a URL."""
    subject: str
    """Stands for all its result depends on; a state kept under another is not resumed."""
    checkpoint_every_s: float
    cost: Cost | None = None
    """The network's, if it is known before it is built; its pace is guessed from the multiply-adds."""
    threads: int | Literal["all"] | None = None
    """Of torch, where they are not the worker's usual ones; ``all`` stands for the cores of the worker's machine."""
    kept: Kept = "best"
    """Which epoch's weights are its result."""
    donor: Donor | None = None
    """Whose weights its student begins with, where the recipe says that it does."""
    export: Callable[[StudentSpec, bytes], bytes] | None = None
    """Makes an ONNX model of the student and its weights, in the worker, if one is wanted; a failure is the job's."""

    @property
    def student(self) -> Recipe:
        """The recipe of a student's job."""
        assert isinstance(self.recipe, Recipe), "the job makes a teacher"
        return self.recipe


def threads_for(job: Job, resources: Resources) -> int:
    """Torch's, for the job in a worker with those resources."""
    return cores() if job.threads == "all" else job.threads or resources.threads


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady:
    """A job's worker is up, has its images and teacher, and begins."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnded:
    """A job finished an epoch."""

    job: str
    report: EpochReport
    replayed: bool = False
    """Whether the epoch was trained before the job resumed from its checkpoint, and is reported again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSucceeded:
    """A job's network is made."""

    job: str
    trained: Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailed:
    """A job cannot be carried out."""

    job: str
    reason: str
    traceback: str = ""
    """Where the reason is an exception that nobody expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterialsFailed:
    """A worker cannot open a job's images or teacher, which would fail every job of theirs."""

    job: str
    reason: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """A job's worker went away; another may resume from the job's checkpoint."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFailed:
    """A job continues without a checkpoint of its last epochs; with an empty reason, it has one again."""

    job: str
    reason: str


Event: TypeAlias = WorkerReady | EpochEnded | JobSucceeded | JobFailed | MaterialsFailed | WorkerLost | CheckpointFailed
ENDS = (JobSucceeded, JobFailed, MaterialsFailed, WorkerLost)
"""After one of these a job's worker is free, or gone."""


class Executor(Protocol):
    """Carries out jobs; the driver submits while there is room and polls for events."""

    def room(self) -> int:
        """How many more jobs can be taken now."""
        ...

    def submit(self, job: Job) -> None:
        """Takes a job."""
        ...

    def stop(self, job_id: str, *, within_s: float) -> None:
        """Ends a job after the epoch it is in, and its worker where that takes longer than ``within_s``.

        Nothing more is reported of the job, and its checkpoint is removed.
        """
        ...

    def drop(self, job_id: str) -> None:
        """Ends a job with its worker at once; nothing more is reported of it, and its checkpoint stays."""
        ...

    def poll(self, timeout_s: float) -> list[Event]:
        """What happened, waiting for it at most that long."""
        ...

    def pause(self) -> AbstractContextManager[None]:
        """Holds work still for a moment, for something to be timed on an idle processor."""
        ...

    def close(self) -> None:
        """Ends all work; nothing is left running."""
        ...


def carry_out(
    trainers: Trainers, job: Job, *, materials: Callable[[], Materials] | None = None
) -> Generator[Event, None, None]:
    """Makes the job's network, from its checkpoint where there is one; reports every epoch and how it ended.

    ``materials`` opens them where they do not lie in the job's place.
    """
    try:
        with reporting_memory():
            trainer = trainers.get(job.materials.key, materials or job.materials.open)
    except OutOfMemory as error:
        yield WorkerLost(job=job.id, reason=str(error))
        return
    except Exception as error:  # noqa: BLE001 - it would fail every job, so the driver is told
        yield MaterialsFailed(job=job.id, reason=_summary(error), traceback=_traceback(error))
        return
    yield WorkerReady(job=job.id)
    yield from _train(trainer, job)


def _train(trainer: Trainer, job: Job) -> Generator[Event, None, None]:
    checkpoint = Checkpoint(job.checkpoint, subject=job.subject, every_s=job.checkpoint_every_s)
    training = trainer.train(job.recipe, checkpoint=checkpoint, kept=job.kept, donor=job.donor)
    failure = ""
    while True:
        try:
            report = next(training)
        except StopIteration as stop:
            yield _result(job, stop.value)
            return
        except CheckpointAway as error:
            yield WorkerLost(job=job.id, reason=str(error))
            return
        except OutOfMemory as error:
            yield WorkerLost(job=job.id, reason=str(error))
            return
        except (TrainingFailed, KdsearchError) as error:
            yield JobFailed(job=job.id, reason=str(error))
            return
        except Exception as error:  # noqa: BLE001 - whatever fails in a job is its result, and would fail again
            yield JobFailed(job=job.id, reason=_summary(error), traceback=_traceback(error))
            return
        yield EpochEnded(job=job.id, report=report, replayed=report.epoch <= checkpoint.resumed_epochs)
        if checkpoint.failure != failure:
            failure = checkpoint.failure
            yield CheckpointFailed(job=job.id, reason=failure)


def _result(job: Job, trained: Trained) -> JobSucceeded | JobFailed:
    if job.export is None:
        return JobSucceeded(job=job.id, trained=trained)
    try:
        exported = job.export(job.student.student, trained.weights)
    except Exception as error:  # noqa: BLE001 - as in training; whatever torch's exporter raises
        return JobFailed(job=job.id, reason=f"cannot be exported: {_summary(error)}", traceback=_traceback(error))
    return JobSucceeded(job=job.id, trained=dataclasses.replace(trained, onnx=exported))


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error))
