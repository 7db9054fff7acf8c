"""One worker process: carries jobs out until the driver hangs up."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from multiprocessing.connection import Connection, wait

import torch

from kdsearch.distill.materials import Trainers
from kdsearch.files.whole import discard
from kdsearch.workers.jobs import ENDS, Job, Resources, carry_out
from kdsearch.workers.pause import Pause


def work(connection: Connection, resources: Resources, pause: Pause) -> None:
    """Receives jobs and sends their events over the connection; returns when it closes.

    An id among the jobs asks to stop the job of that id; None answers when that is done.
    """
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
                torch.set_num_threads(job.threads or resources.threads)
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
