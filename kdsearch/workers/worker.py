"""One worker process: carries jobs out until the driver hangs up, and pauses when it is asked to."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext

import torch

from kdsearch.distill.materials import Trainers
from kdsearch.files.whole import discard
from kdsearch.workers.jobs import ENDS, Job, Resources, carry_out, threads_for

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
