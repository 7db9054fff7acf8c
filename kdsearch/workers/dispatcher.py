"""Hands jobs to an executor, watches over them, and passes what comes of them to a results."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

from kdsearch.distill.result import Trained
from kdsearch.errors import SearchError
from kdsearch.trials.record import EpochReport
from kdsearch.workers.jobs import (
    CheckpointFailed,
    EpochEnded,
    Event,
    Executor,
    Job,
    JobFailed,
    JobSucceeded,
    MaterialsFailed,
    WorkerLost,
    WorkerReady,
)

LEAST_S = 60.0
"""Silence shorter than this is never taken for a loss."""
UNKNOWN_S = 1800.0
"""For as long a worker may take to start, and a first epoch, before anything is known of its pace."""


class Watchdog:
    """How long each running job has been silent, and how long it may be."""

    def __init__(self, *, timeout: float, least_s: float = LEAST_S) -> None:
        """``timeout``: usual epochs without a report after which a worker is taken for lost."""
        self._timeout, self._least_s = timeout, least_s
        self._macs: dict[str, int | None] = {}
        self._up: set[str] = set()
        self._heard: dict[str, float] = {}
        self._reported: dict[str, float] = {}
        self._epoch_s: dict[str, float] = {}
        self._seconds_per_mac = 0.0

    def begin(self, job: str, *, macs: int | None, now: float) -> None:
        """A job is given to a worker, which may have to start.

        ``macs`` are its network's, None where they say nothing of its pace; ``now`` in seconds of a clock that never
        goes back.
        """
        self._macs[job], self._heard[job] = macs, now
        self._reported[job] = self._epoch_s[job] = 0.0

    def started(self, job: str, *, now: float) -> None:
        """A job's worker is up."""
        self._up.add(job)
        self._heard[job] = now

    def heartbeat(self, job: str, report: EpochReport, *, now: float) -> None:
        """A job reports; how long its epochs take is what the reports themselves say."""
        took = report.seconds - self._reported[job]
        self._heard[job], self._reported[job] = now, report.seconds
        self._epoch_s[job] = max(self._epoch_s[job], took)
        macs = self._macs[job]
        if macs is not None:
            self._seconds_per_mac = max(self._seconds_per_mac, took / macs)

    def end(self, job: str) -> None:
        """A job ends, or loses its worker."""
        self._up.discard(job)
        for known in (self._macs, self._heard, self._reported, self._epoch_s):
            known.pop(job, None)

    def reset(self, *, now: float) -> None:
        """The driver did not poll until now, so silence until now says nothing."""
        self._heard = dict.fromkeys(self._heard, now)

    def silent(self, *, now: float) -> list[tuple[str, float]]:
        """Jobs silent for too long, and for how many seconds."""
        return [(job, now - heard) for job, heard in self._heard.items() if now - heard > self.allowed(job)]

    def allowed(self, job: str) -> float:
        """Seconds that a job may be silent.

        From its own slowest epoch; before its first, from the slowest pace of those whose size is known.
        """
        if self._macs[job] is None and job in self._up and not self._epoch_s[job]:
            return math.inf  # such as a large teacher's first epoch; a process that dies is noticed anyway
        usual = self._epoch_s[job] or self._seconds_per_mac * (self._macs[job] or 0)
        return max(self._least_s, self._timeout * usual) if usual and job in self._up else UNKNOWN_S


POLL_S = 0.2
AWAY_S = 10.0
"""A round that took longer than this, as after a Ctrl-Z, says nothing about the workers' silence."""

logger = logging.getLogger(__name__)

Curve: TypeAlias = tuple[EpochReport, ...]
E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)


class Stopping(Protocol[E_co]):
    """Decides after each epoch whether a job stops."""

    def epoch(self, job: Job, curve: Curve, *, replayed: bool) -> str:
        """Takes a job's last epoch into account; returns why the job stops after it, empty if it continues.

        ``replayed``: the epoch was trained before the job resumed.
        """
        ...

    def stopped(self, job: Job, reason: str, curve: Curve) -> Iterator[E_co]:
        """Keeps a job that stopped because ``epoch`` said so."""
        ...


class Losses(Protocol[E_co]):
    """Remembers lost workers for the next driver."""

    def lost(self, job: Job, reasons: tuple[str, ...]) -> Iterator[E_co]:
        """Keeps how a job's workers were lost, one after the other."""
        ...


class Results(Protocol[E_co]):
    """Where the results of jobs go.

    What a method yields is passed to whoever watches; a result is kept when the iterator is exhausted.
    """

    @property
    def stopping(self) -> Stopping[E_co] | None:
        """None if every job is trained to its end."""
        ...

    @property
    def losses(self) -> Losses[E_co] | None:
        """None if the next driver counts lost workers from 0."""
        ...

    def succeeded(self, job: Job, trained: Trained, curve: Curve) -> Iterator[E_co]:
        """Keeps what a job made."""
        ...

    def failed(self, job: Job, reason: str, curve: Curve, *, traceback: str = "") -> Iterator[E_co]:
        """Keeps why a job made nothing; ``traceback`` is an unexpected exception's."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeued:
    """A job lost its worker and waits for another."""

    job: str
    reason: str
    attempt: int
    """How many workers it has lost."""
    retries: int


Passed: TypeAlias = EpochEnded | CheckpointFailed | Requeued
"""What a dispatcher reports in addition to what results yield."""


@dataclass(slots=True)
class _Running:
    job: Job
    curve: list[EpochReport] = field(default_factory=list)


class Dispatcher:
    """The jobs that have a worker, and those that lost theirs and wait for another."""

    def __init__(
        self,
        executor: Executor,
        *,
        study: str,
        watchdog: Watchdog,
        retries: int,
        lost: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """A job is given up after ``retries`` more workers; ``lost`` are those that jobs lost to former drivers.

        ``study`` is its name, for errors.
        """
        self.executor, self.watchdog = executor, watchdog
        self.waiting: deque[Job] = deque()
        self._study, self._retries = study, retries
        self._lost = dict(lost or {})
        self._running: dict[str, _Running] = {}

    @property
    def running(self) -> tuple[Job, ...]:
        """Jobs that have a worker."""
        return tuple(running.job for running in self._running.values())

    @property
    def open(self) -> int:
        """Jobs that run or wait."""
        return len(self._running) + len(self.waiting)

    def room(self) -> int:
        """How many more jobs workers can take now."""
        return self.executor.room()

    def next_requeued(self) -> Job | None:
        """A job that lost its worker, if one waits for another."""
        return self.waiting.popleft() if self.waiting else None

    def start(self, job: Job) -> None:
        """Gives the job to a worker."""
        assert job.id not in self._running, "a job has one worker"
        self.executor.submit(job)
        self._running[job.id] = _Running(job)
        self.watchdog.begin(job.id, macs=None if job.cost is None else job.cost.macs, now=time.monotonic())

    def poll(self, results: Results[E]) -> Iterator[E | Passed]:
        """Handles what happened, waiting for it for a moment; raises SearchError where it is useless to continue."""
        polled = time.monotonic()
        for event in self.executor.poll(POLL_S):
            yield from self.handle(event, results)
        if time.monotonic() - polled > AWAY_S:
            self.watchdog.reset(now=time.monotonic())
        yield from self.drop_silent(results)

    def handle(self, event: Event, results: Results[E]) -> Iterator[E | Passed]:
        """Handles one event; one of a job that has ended is ignored."""
        running = self._running.get(event.job)
        if running is None:
            return
        match event:
            case WorkerReady():
                self.watchdog.started(event.job, now=time.monotonic())
            case EpochEnded():
                yield event
                yield from self._progress(running, event, results)
            case JobSucceeded(trained=trained):
                yield from results.succeeded(running.job, trained, self._end(running))
            case JobFailed(reason=reason):
                yield from results.failed(running.job, reason, self._end(running), traceback=event.traceback)
            case MaterialsFailed(reason=reason):
                logger.error("a worker could not open images or teacher:\n%s", event.traceback)
                raise SearchError(
                    f"study {self._study} stops: a worker could not open its images or teacher: {reason}. What is "
                    "finished is kept, and the same command resumes when the cause is fixed"
                )
            case WorkerLost(reason=reason):
                yield from self._lose(running, reason, results)
            case CheckpointFailed():
                yield event

    def drop_silent(self, results: Results[E]) -> Iterator[E | Passed]:
        """Ends workers that no longer report; their jobs resume with others."""
        for job_id, seconds in self.watchdog.silent(now=time.monotonic()):
            self.executor.drop(job_id)
            yield from self._lose(self._running[job_id], f"its worker was silent for {seconds:.0f} seconds", results)

    def _progress(self, running: _Running, event: EpochEnded, results: Results[E]) -> Iterator[E]:
        running.curve.append(event.report)
        self.watchdog.heartbeat(running.job.id, event.report, now=time.monotonic())
        stopping = results.stopping
        if stopping is None:
            return
        reason = stopping.epoch(running.job, tuple(running.curve), replayed=event.replayed)
        if reason:
            self.executor.stop(running.job.id, within_s=self.watchdog.allowed(running.job.id))
            yield from stopping.stopped(running.job, reason, self._end(running))

    def _lose(self, running: _Running, reason: str, results: Results[E]) -> Iterator[E | Passed]:
        """Requeues a job that lost its worker, or gives it up after too many."""
        job, curve = running.job, self._end(running)
        reasons = self._lost[job.id] = (*self._lost.get(job.id, ()), reason)
        if results.losses is not None:
            yield from results.losses.lost(job, reasons)
        if len(reasons) <= self._retries:
            self.waiting.appendleft(job)
            yield Requeued(job=job.id, reason=reason, attempt=len(reasons), retries=self._retries)
            return
        text = f"{reason} (lost {len(reasons)} times)" if len(reasons) > 1 else reason
        yield from results.failed(job, text, curve)

    def _end(self, running: _Running) -> Curve:
        """Forgets a job that has no worker any more; returns its epochs."""
        del self._running[running.job.id]
        self.watchdog.end(running.job.id)
        return tuple(running.curve)
