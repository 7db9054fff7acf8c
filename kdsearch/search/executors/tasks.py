"""What the driver and its executors say to each other."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from kdsearch.distill.checkpoint import Checkpoint
from kdsearch.distill.materials import Materials, Place, Trainers
from kdsearch.distill.report import OutOfMemory, Trained, TrainingFailed
from kdsearch.trials.curve import EpochReport
from kdsearch.trials.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one worker computes with."""

    device: str
    threads: int
    """Of torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One student to make."""

    number: int
    recipe: Recipe
    materials: Place
    checkpoint: str
    """Where its state lies while it runs: a path or a URL."""
    subject: str
    """Stands for all its result depends on; a state kept under another is not taken up."""
    checkpoint_every_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A trial's worker is up and begins."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """A trial finished an epoch."""

    number: int
    report: EpochReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """A trial's student is made."""

    number: int
    trained: Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A trial cannot be carried out."""

    number: int
    reason: str
    traceback: str = ""
    """Where the reason is an exception that nobody expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A trial's worker went away; another may go on from the trial's checkpoint."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindered:
    """A trial goes on without something it should have, such as its checkpoint."""

    number: int
    reason: str


Event: TypeAlias = Begun | Progressed | Succeeded | Failed | Lost | Hindered
ENDS = (Succeeded, Failed, Lost)
"""After one of these a task's worker is free, or gone."""


class Executor(Protocol):
    """Carries out tasks; the driver submits while there is room and polls for events."""

    def room(self) -> int:
        """How many more tasks can be taken now."""
        ...

    def submit(self, task: Task) -> None:
        """Takes a task."""
        ...

    def stop(self, number: int, *, within_s: float) -> None:
        """Ends a task after the epoch it is in, and its worker where that takes longer than ``within_s``.

        Nothing more is told of the task, and its checkpoint is removed.
        """
        ...

    def drop(self, number: int) -> None:
        """Ends a task with its worker at once; nothing more is told of it, and its checkpoint stays."""
        ...

    def poll(self, timeout_s: float) -> list[Event]:
        """What happened, waiting for it at most that long."""
        ...

    def quiet(self) -> AbstractContextManager[None]:
        """Holds work still for a moment, for something to be timed on an idle processor."""
        ...

    def close(self) -> None:
        """Ends all work; nothing is left running."""
        ...


def carry_out(
    trainers: Trainers, task: Task, *, materials: Callable[[], Materials] | None = None
) -> Generator[Event, None, None]:
    """Makes the task's student, from its checkpoint where there is one, telling every epoch and how it ended.

    ``materials`` opens them where they do not lie in the task's place.
    """
    checkpoint = Checkpoint(task.checkpoint, subject=task.subject, every_s=task.checkpoint_every_s)
    training: Generator[EpochReport, None, Trained] | None = None
    hindrance = ""
    yield Begun(number=task.number)
    while True:
        try:
            if training is None:
                trainer = trainers.get(task.materials.key, materials or task.materials.open)
                training = trainer.distil(task.recipe, checkpoint=checkpoint)
            report = next(training)
        except StopIteration as stop:
            yield Succeeded(number=task.number, trained=stop.value)
            return
        except OutOfMemory as error:
            yield Lost(number=task.number, reason=str(error))
            return
        except TrainingFailed as error:
            yield Failed(number=task.number, reason=str(error))
            return
        except Exception as error:  # noqa: BLE001 - whatever fails in a trial is its result, and would fail again
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Failed(number=task.number, reason=text, traceback="".join(traceback.format_exception(error)))
            return
        yield Progressed(number=task.number, report=report)
        if checkpoint.hindrance != hindrance:
            hindrance = checkpoint.hindrance
            yield Hindered(number=task.number, reason=hindrance)
