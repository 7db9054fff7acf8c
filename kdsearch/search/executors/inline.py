"""Carries tasks out in the driver itself, one epoch a poll: for debugging."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from kdsearch.search.executors.tasks import Event, Failed, Setup, Succeeded, Task, carry_out, open_workshop


class InlineExecutor:
    """One task at a time, in this process."""

    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        self._workshop = open_workshop(setup)
        self._events: Iterator[Event] | None = None

    def room(self) -> int:
        """One while nothing runs."""
        return 1 if self._events is None else 0

    def submit(self, task: Task) -> None:
        """Begins the task; it goes on with every poll."""
        self._events = carry_out(self._workshop, task)

    def poll(self, timeout_s: float) -> list[Event]:  # noqa: ARG002 - an epoch takes as long as it takes
        """Trains one epoch and tells of it."""
        if self._events is None:
            return []
        event = next(self._events)
        if isinstance(event, Succeeded | Failed):
            self._events = None
        return [event]

    def close(self) -> None:
        """Drops the running task."""
        self._events = None
