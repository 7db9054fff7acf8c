"""One worker process: makes students until the driver hangs up."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from multiprocessing.connection import Connection, wait

import torch

from kdsearch.distill.materials import Trainers
from kdsearch.files.whole import discard
from kdsearch.search.executors.rest import Rest
from kdsearch.search.executors.tasks import ENDS, Resources, Task, carry_out


def work(connection: Connection, resources: Resources, rest: Rest) -> None:
    """Receives tasks and sends their events over the connection; returns when it closes.

    A number among the tasks asks to stop the task of that number; None answers when that is done.
    """
    rest.obey()
    threading.Thread(target=_end_with_driver, daemon=True).start()
    torch.set_num_threads(resources.threads)
    trainers = Trainers(torch.device(resources.device))
    task: Task | None = None
    try:
        connection.send(None)
        while True:
            message = connection.recv()
            if isinstance(message, Task):
                task = message
                _carry_out(connection, trainers, task)
            elif task is not None and message == task.number:  # called off in the moment it ended
                discard(task.checkpoint)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _carry_out(connection: Connection, trainers: Trainers, task: Task) -> None:
    with contextlib.closing(carry_out(trainers, task)) as events:
        for event in events:
            connection.send(event)
            if not isinstance(event, ENDS) and connection.poll() and connection.recv() == task.number:
                break
        else:
            return
    discard(task.checkpoint)
    connection.send(None)


def _end_with_driver() -> None:
    """A driver that is killed leaves no worker behind that would train, and write, beside the next driver's."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    wait([driver.sentinel])
    os._exit(1)
