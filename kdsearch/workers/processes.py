"""Carries jobs out in persistent worker processes."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess

import torch

from kdsearch.distill.materials import Trainers
from kdsearch.environment import set_environment
from kdsearch.errors import SearchError
from kdsearch.files.whole import discard
from kdsearch.workers.jobs import ENDS, Event, Job, JobFailed, Resources, WorkerLost, carry_out, threads_for

LONGEST_S = 300.0
"""A worker continues after this whatever its driver does; one whose driver died is ended by another thread at once."""
ASKED, PAUSED = 0, 1


class Pause:
    """Shared by the driver and one worker."""

    def __init__(self, context: SpawnContext, *, longest_s: float = LONGEST_S) -> None:
        self._flags = context.RawArray("b", 2)
        self._longest_s = longest_s

    def ask(self, process: int) -> None:
        """The driver: asks the worker to pause after the operation it is in."""
        self._flags[ASKED] = 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGUSR1)

    @property
    def is_paused(self) -> bool:
        """The driver: whether the worker pauses now."""
        return bool(self._flags[PAUSED])

    def end(self) -> None:
        """The driver: lets the worker continue."""
        self._flags[ASKED] = 0

    def obey(self) -> None:
        """The worker: from now on, pauses when it is asked to."""
        signal.signal(signal.SIGUSR1, self._pause)

    def _pause(self, _number: int, _frame: object) -> None:
        until = time.monotonic() + self._longest_s
        self._flags[PAUSED] = 1
        while self._flags[ASKED] and time.monotonic() < until:
            time.sleep(0.005)
        self._flags[PAUSED] = 0


def ignore_interrupts() -> None:
    """The worker: Ctrl-C is for its driver, which ends it; it was held back until now."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def work(connection: Connection, resources: Resources, pause: Pause) -> None:
    """Receives jobs and sends their events over the connection; returns when it closes.

    An id among the jobs asks to stop the job of that id; None answers when that is done.
    """
    ignore_interrupts()
    pause.obey()
    threading.Thread(target=_end_with_driver, daemon=True).start()
    trainers = Trainers(torch.device(resources.device))
    job: Job | None = None
    try:
        connection.send(None)
        while True:
            message = connection.recv()
            if isinstance(message, Job):
                job = message
                torch.set_num_threads(threads_for(job, resources))
                _carry_out(connection, trainers, job)
            elif job is not None and message == job.id:  # called off in the moment it ended
                discard(job.checkpoint)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _carry_out(connection: Connection, trainers: Trainers, job: Job) -> None:
    with contextlib.closing(carry_out(trainers, job)) as events:
        for event in events:
            connection.send(event)
            if not isinstance(event, ENDS) and connection.poll() and connection.recv() == job.id:
                break
        else:
            return
    discard(job.checkpoint)
    connection.send(None)


def _end_with_driver() -> None:
    """A driver that is killed leaves no worker behind that would train, and write, beside the next driver's."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    wait([driver.sentinel])
    os._exit(1)


logger = logging.getLogger(__name__)

PAUSE_WITHIN_S = 5.0
UP_WITHIN_S = 60.0


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    connection: Connection
    pause: Pause
    ready: bool = False
    job: Job | None = None
    stop_by: float | None = None
    """When it is replaced, by the monotonic clock, if its job was called off and it has not answered; else None."""


class ProcessExecutor:
    """Spawned workers that load libraries once, and data and teachers on first need; one that dies is replaced."""

    def __init__(self, resources: Resources, *, workers: int) -> None:
        set_environment()
        self._resources = resources
        self._workers = [self._start() for _ in range(workers)]

    def room(self) -> int:
        """Workers without a job; one that still starts up takes a job already."""
        return sum(worker.job is None for worker in self._workers)

    def submit(self, job: Job) -> None:
        """Sends the job to a worker without one."""
        worker = next(worker for worker in self._workers if worker.job is None)
        worker.job = job
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the next poll notices its death
            worker.connection.send(job)

    def stop(self, job_id: str, *, within_s: float) -> None:
        """Asks the job's worker to stop after its epoch; until it answers, or is replaced, it has no room."""
        for worker in self._carrying(job_id):
            worker.stop_by = time.monotonic() + within_s
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                worker.connection.send(job_id)

    def drop(self, job_id: str) -> None:
        """Kills the job's worker and starts another in its place."""
        for worker in self._carrying(job_id):
            self._kill(worker)

    def poll(self, timeout_s: float) -> list[Event]:
        """What workers sent; raises SearchError where a worker cannot even start."""
        events: list[Event] = []
        self._replace_hanging()
        heard = wait([worker.connection for worker in self._workers], timeout=timeout_s)
        for index, worker in enumerate(self._workers):
            if worker.connection in heard:
                events += self._receive(index, worker)
        return events

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Lets the workers pause between two operations; they continue by themselves if this process dies meanwhile.

        One that still starts up is waited for: it computes, and cannot be asked before it is up.
        """
        began = time.monotonic()
        for worker in self._workers:
            if not worker.ready and not worker.connection.poll(max(0.0, began + UP_WITHIN_S - time.monotonic())):
                logger.warning("a worker still starts up; a latency may come out too long")
        training = [worker for worker in self._workers if worker.job is not None and self._hears(worker)]
        for worker in training:
            assert worker.process.pid is not None, "it was started"
            worker.pause.ask(worker.process.pid)
        until = time.monotonic() + PAUSE_WITHIN_S
        while not all(worker.pause.is_paused or not worker.process.is_alive() for worker in training):
            if time.monotonic() > until:
                logger.warning("a worker did not pause within %s s; a latency may come out too long", PAUSE_WITHIN_S)
                break
            time.sleep(0.005)
        try:
            yield
        finally:
            for worker in training:
                worker.pause.end()

    @staticmethod
    def _hears(worker: _Worker) -> bool:
        """Whether the worker is up; before that a signal would end it."""
        return worker.process.is_alive() and (worker.ready or worker.connection.poll())

    def close(self) -> None:
        """Ends all workers."""
        for worker in self._workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()

    def _replace_hanging(self) -> None:
        """Kills workers that were to stop and did not in time."""
        for worker in list(self._workers):
            if worker.job is not None and worker.stop_by is not None and time.monotonic() > worker.stop_by:
                logger.warning("a worker did not stop job %s in time and is replaced", worker.job.id)
                self._kill(worker)
                discard(worker.job.checkpoint)

    def _kill(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join(timeout=5)
        worker.connection.close()
        self._workers[self._workers.index(worker)] = self._start()

    def _carrying(self, job_id: str) -> list[_Worker]:
        return [worker for worker in self._workers if worker.job is not None and worker.job.id == job_id]

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        pause = Pause(context)
        process = context.Process(
            target=work, args=(theirs, self._resources, pause), daemon=True, name="kdsearch worker"
        )
        with _holding_interrupts():
            process.start()
        theirs.close()
        return _Worker(process=process, connection=ours, pause=pause)

    def _receive(self, index: int, worker: _Worker) -> list[Event]:
        try:
            event: Event | None = worker.connection.recv()
        except (EOFError, OSError):  # a worker may die in the middle of a message
            return self._replace(index, worker)
        if event is None and not worker.ready:
            worker.ready = True
            return []
        silent = worker.stop_by is not None
        if event is None or isinstance(event, ENDS):
            worker.job, worker.stop_by = None, None
        if isinstance(event, JobFailed) and event.traceback:  # it may have spoilt the process, such as its CUDA context
            self._kill(worker)
        return [] if silent or event is None else [event]

    def _replace(self, index: int, worker: _Worker) -> list[Event]:
        worker.process.join(timeout=5)
        code = worker.process.exitcode
        killed = code is None or code < 0
        if not worker.ready and not killed:
            raise SearchError(f"a worker process could not start (exit code {code}); what it printed above says why")
        self._workers[index] = self._start()
        if worker.job is None or worker.stop_by is not None:
            return []
        how = f"signal {-(code or 0)}" if killed else f"exit code {code}"
        return [WorkerLost(job=worker.job.id, reason=f"the worker process ended with {how}")]


@contextlib.contextmanager
def _holding_interrupts() -> Iterator[None]:
    """Ctrl-C reaches every process of the terminal; one started here holds it back until it can ignore it.

    It inherits this thread's blocked signals. A Ctrl-C for this process waits until the end.
    """
    resource_tracker.ensure_running()  # else it would be started here, and unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
