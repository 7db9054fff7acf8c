"""Runs jobs in persistent worker processes."""

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
from kdsearch.files.atomic import discard
from kdsearch.workers.jobs import ENDS, Event, Job, JobFailed, Resources, WorkerLost, carry_out, threads_for

LONGEST_S = 300.0
"""A paused worker continues after this at the latest; if its driver dies, another thread ends it immediately."""
ASKED, PAUSED = 0, 1


class Pause:
    """Pauses one worker; shared by the driver and the worker."""

    def __init__(self, context: SpawnContext, *, longest_s: float = LONGEST_S) -> None:
        self._flags = context.RawArray("b", 2)
        self._longest_s = longest_s

    def ask(self, process: int) -> None:
        """In the driver: asks the worker to pause after its current operation."""
        self._flags[ASKED] = 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGUSR1)

    @property
    def is_paused(self) -> bool:
        """In the driver: whether the worker is paused."""
        return bool(self._flags[PAUSED])

    def end(self) -> None:
        """In the driver: lets the worker continue."""
        self._flags[ASKED] = 0

    def obey(self) -> None:
        """In the worker: starts to obey requests to pause."""
        signal.signal(signal.SIGUSR1, self._pause)

    def _pause(self, _number: int, _frame: object) -> None:
        until = time.monotonic() + self._longest_s
        self._flags[PAUSED] = 1
        while self._flags[ASKED] and time.monotonic() < until:
            time.sleep(0.005)
        self._flags[PAUSED] = 0


def ignore_interrupts() -> None:
    """In the worker: ignores Ctrl-C, which the driver handles; the signal was blocked until now."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def work(connection: Connection, resources: Resources, pause: Pause) -> None:
    """Receives jobs and sends their events over the connection; returns when the connection closes.

    A job's id instead of a job asks to stop that job; the answer is None.
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
            elif job is not None and message == job.id:  # the request to stop arrived just after the job ended
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
    """Ends the worker if its driver is killed, so that it does not train and write while the next driver runs."""
    driver = multiprocessing.parent_process()
    assert driver is not None, "workers are started by a driver"
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
    """When the worker is replaced, by the monotonic clock, if it does not answer a request to stop; else None."""


class ProcessExecutor:
    """Spawned workers that load libraries once, and data and teachers when first needed; dead ones are replaced."""

    def __init__(self, resources: Resources, *, workers: int) -> None:
        set_environment()
        self._resources = resources
        self._workers = [self._start() for _ in range(workers)]

    def room(self) -> int:
        """Number of workers without a job, including those that are still starting."""
        return sum(worker.job is None for worker in self._workers)

    def submit(self, job: Job) -> None:
        worker = next(worker for worker in self._workers if worker.job is None)
        worker.job = job
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the next poll detects its death
            worker.connection.send(job)

    def stop(self, job_id: str, *, within_s: float) -> None:
        """Asks the job's worker to stop after its epoch; it is busy until it answers or is replaced."""
        for worker in self._carrying(job_id):
            worker.stop_by = time.monotonic() + within_s
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                worker.connection.send(job_id)

    def drop(self, job_id: str) -> None:
        for worker in self._carrying(job_id):
            self._kill(worker)

    def poll(self, timeout_s: float) -> list[Event]:
        """Returns what workers sent; raises SearchError if a worker cannot start."""
        events: list[Event] = []
        self._replace_hanging()
        ready = wait([worker.connection for worker in self._workers], timeout=timeout_s)
        for index, worker in enumerate(self._workers):
            if worker.connection in ready:
                events += self._receive(index, worker)
        return events

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Pauses all workers between two operations; they continue by themselves if this process dies.

        Waits for workers that are still starting, because they use the processor and cannot be paused yet.
        """
        began = time.monotonic()
        for worker in self._workers:
            if not worker.ready and not worker.connection.poll(max(0.0, began + UP_WITHIN_S - time.monotonic())):
                logger.warning("a worker is still starting; a measured latency may be too high")
        training = [worker for worker in self._workers if worker.job is not None and self._can_pause(worker)]
        for worker in training:
            assert worker.process.pid is not None, "the process was started"
            worker.pause.ask(worker.process.pid)
        until = time.monotonic() + PAUSE_WITHIN_S
        while not all(worker.pause.is_paused or not worker.process.is_alive() for worker in training):
            if time.monotonic() > until:
                logger.warning("a worker did not pause within %s s; a measured latency may be too high", PAUSE_WITHIN_S)
                break
            time.sleep(0.005)
        try:
            yield
        finally:
            for worker in training:
                worker.pause.end()

    @staticmethod
    def _can_pause(worker: _Worker) -> bool:
        """Whether the worker handles signals; a signal would kill one that is still starting."""
        return worker.process.is_alive() and (worker.ready or worker.connection.poll())

    def close(self) -> None:
        for worker in self._workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()

    def _replace_hanging(self) -> None:
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
        except (EOFError, OSError):  # a worker may die while it sends a message
            return self._replace(index, worker)
        if event is None and not worker.ready:
            worker.ready = True
            return []
        silent = worker.stop_by is not None
        if event is None or isinstance(event, ENDS):
            worker.job, worker.stop_by = None, None
        if isinstance(event, JobFailed) and event.traceback:  # its process may be broken, such as its CUDA context
            self._kill(worker)
        return [] if silent or event is None else [event]

    def _replace(self, index: int, worker: _Worker) -> list[Event]:
        worker.process.join(timeout=5)
        code = worker.process.exitcode
        killed = code is None or code < 0
        if not worker.ready and not killed:
            raise SearchError(f"a worker process could not start (exit code {code}); see its output above")
        self._workers[index] = self._start()
        if worker.job is None or worker.stop_by is not None:
            return []
        how = f"signal {-(code or 0)}" if killed else f"exit code {code}"
        return [WorkerLost(job=worker.job.id, reason=f"the worker process ended with {how}")]


@contextlib.contextmanager
def _holding_interrupts() -> Iterator[None]:
    """Blocks Ctrl-C while a process starts, so that the process inherits the block until it ignores the signal.

    The terminal sends Ctrl-C to all its processes. A Ctrl-C for this process is delivered when the context exits.
    """
    resource_tracker.ensure_running()  # otherwise it would start here and unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
