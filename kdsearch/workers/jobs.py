"""Jobs, the events that workers report, and the executor's interface."""

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
    """The device and threads of one worker."""

    device: str
    threads: int
    """Number of torch threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One student or teacher to train."""

    id: str
    """Names the job in events and files; its meaning is up to the submitter."""
    recipe: Recipe | TeacherRecipe
    materials: Place
    checkpoint: str
    """The path or URL of its checkpoint."""
    subject: str
    """Identifies everything the result depends on; a checkpoint with another subject is not resumed."""
    checkpoint_every_s: float
    cost: Cost | None = None
    """The network's cost, if it is known before the network is built; used to estimate the job's speed."""
    threads: int | Literal["all"] | None = None
    """Torch threads; ``all`` means all cores of the worker's machine, None the worker's default."""
    kept: Kept = "best"
    """Which epoch's weights are the result."""
    donor: Donor | None = None
    """The student whose weights are inherited, if the recipe names one."""
    export: Callable[[StudentSpec, bytes], bytes] | None = None
    """Converts the student and its weights to an ONNX model in the worker; the job fails if the conversion does."""

    @property
    def student(self) -> Recipe:
        """The recipe of a student's job."""
        assert isinstance(self.recipe, Recipe), "the job trains a student"
        return self.recipe


def threads_for(job: Job, resources: Resources) -> int:
    """The number of torch threads for the job in a worker with these resources."""
    return cores() if job.threads == "all" else job.threads or resources.threads


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady:
    """A job's worker has opened the images and the teacher and starts training."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnded:
    """A job finished an epoch."""

    job: str
    report: EpochReport
    replayed: bool = False
    """Whether the epoch was trained before the job resumed from its checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSucceeded:
    """A job finished training its network."""

    job: str
    trained: Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailed:
    """A job failed."""

    job: str
    reason: str
    traceback: str = ""
    """Set if the reason is an unexpected exception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterialsFailed:
    """A worker cannot open a job's images or teacher, so that all jobs with them would fail."""

    job: str
    reason: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """A job lost its worker; another worker may resume from the job's checkpoint."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFailed:
    """A checkpoint could not be written, and the job continues; an empty reason means that checkpoints work again."""

    job: str
    reason: str


Event: TypeAlias = WorkerReady | EpochEnded | JobSucceeded | JobFailed | MaterialsFailed | WorkerLost | CheckpointFailed
ENDS = (JobSucceeded, JobFailed, MaterialsFailed, WorkerLost)
"""After one of these events the job's worker is free or has ended."""


class Executor(Protocol):
    """Runs jobs; the driver submits jobs while there is room and polls for events."""

    def room(self) -> int:
        """How many more jobs can start now."""
        ...

    def submit(self, job: Job) -> None:
        """Starts a job; there must be room."""
        ...

    def stop(self, job_id: str, *, within_s: float) -> None:
        """Ends a job after its current epoch; kills its worker if that takes longer than ``within_s`` seconds.

        Reports no more events for the job and removes its checkpoint.
        """
        ...

    def drop(self, job_id: str) -> None:
        """Ends a job and its worker immediately; reports no more events for the job and keeps its checkpoint."""
        ...

    def poll(self, timeout_s: float) -> list[Event]:
        """Returns new events, after waiting at most ``timeout_s`` seconds for the first."""
        ...

    def pause(self) -> AbstractContextManager[None]:
        """Pauses all work within the context, so that latency can be measured on an idle processor."""
        ...

    def close(self) -> None:
        """Ends all work."""
        ...


def carry_out(
    trainers: Trainers, job: Job, *, materials: Callable[[], Materials] | None = None
) -> Generator[Event, None, None]:
    """Trains the job's network, resuming from its checkpoint if there is one; reports every epoch and the outcome.

    ``materials`` opens the materials; None opens those that the job names on this machine.
    """
    try:
        with reporting_memory():
            trainer = trainers.get(job.materials.key, materials or job.materials.open)
    except OutOfMemory as error:
        yield WorkerLost(job=job.id, reason=str(error))
        return
    except Exception as error:  # noqa: BLE001 - it would fail every job, so the driver must know
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
        except Exception as error:  # noqa: BLE001 - the one broad boundary: an exception is the result of a job
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
        return JobFailed(job=job.id, reason=f"ONNX export failed: {_summary(error)}", traceback=_traceback(error))
    return JobSucceeded(job=job.id, trained=dataclasses.replace(trained, onnx=exported))


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error))
