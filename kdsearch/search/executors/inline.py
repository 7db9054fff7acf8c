"""Carries tasks out in the driver itself, one epoch a poll: for debugging."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

from kdsearch.distill.materials import Trainers
from kdsearch.files.whole import discard
from kdsearch.search.executors.tasks import ENDS, Event, Resources, Task, carry_out


class InlineExecutor:
    """One task at a time, in this process."""

    def __init__(self, resources: Resources) -> None:
        torch.set_num_threads(resources.threads)
        self._trainers = Trainers(torch.device(resources.device))
        self._task: Task | None = None
        self._events: Iterator[Event] = iter(())

    def room(self) -> int:
        """One while nothing runs."""
        return 1 if self._task is None else 0

    def submit(self, task: Task) -> None:
        """Begins the task; it goes on with every poll."""
        self._task, self._events = task, carry_out(self._trainers, task)

    def stop(self, number: int, *, within_s: float) -> None:  # noqa: ARG002 - it ends at once
        """Drops the task and its checkpoint."""
        if self._task is not None and self._task.number == number:
            discard(self._task.checkpoint)
            self.drop(number)

    def drop(self, number: int) -> None:
        """Drops the task."""
        if self._task is not None and self._task.number == number:
            self.close()

    def poll(self, timeout_s: float) -> list[Event]:  # noqa: ARG002 - an epoch takes as long as it takes
        """Trains one epoch and tells of it."""
        if self._task is None:
            return []
        event = next(self._events)
        if isinstance(event, ENDS):
            self._task = None
        return [event]

    def quiet(self) -> AbstractContextManager[None]:
        """Nothing runs between two polls."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Drops the running task."""
        self._task, self._events = None, iter(())
