"""Runs jobs in the driver process, one epoch per poll, for debugging."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

from kdsearch.distill.materials import Trainers
from kdsearch.files.atomic import discard
from kdsearch.workers.jobs import ENDS, Event, Job, Resources, carry_out, threads_for


class InlineExecutor:
    """One job at a time, in this process."""

    def __init__(self, resources: Resources) -> None:
        self._threads_before = torch.get_num_threads()
        self._resources = resources
        self._trainers = Trainers(torch.device(resources.device))
        self._job: Job | None = None
        self._events: Iterator[Event] = iter(())

    def room(self) -> int:
        return 1 if self._job is None else 0

    def submit(self, job: Job) -> None:
        """Starts the job; each poll trains one epoch."""
        torch.set_num_threads(threads_for(job, self._resources))
        self._job, self._events = job, carry_out(self._trainers, job)

    def stop(self, job_id: str, *, within_s: float) -> None:  # noqa: ARG002 - it ends at once
        """Drops the job and its checkpoint."""
        if self._job is not None and self._job.id == job_id:
            discard(self._job.checkpoint)
            self.drop(job_id)

    def drop(self, job_id: str) -> None:
        if self._job is not None and self._job.id == job_id:
            self._forget()

    def poll(self, timeout_s: float) -> list[Event]:  # noqa: ARG002 - an epoch takes as long as it takes
        """Trains one epoch and reports it."""
        if self._job is None:
            return []
        event = next(self._events)
        if isinstance(event, ENDS):
            self._job = None
        return [event]

    def pause(self) -> AbstractContextManager[None]:
        """Does nothing, because no job runs between two polls."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Drops the running job and restores this process's number of torch threads."""
        self._forget()
        torch.set_num_threads(self._threads_before)

    def _forget(self) -> None:
        self._job, self._events = None, iter(())
