"""One worker process: opens data and teacher once, then makes students until the driver hangs up."""

from __future__ import annotations

from multiprocessing.connection import Connection

import torch

from kdsearch.search.executors.tasks import Setup, carry_out, open_workshop


def work(connection: Connection, setup: Setup) -> None:
    """Receives tasks and sends their events over the connection; returns when it closes."""
    torch.set_num_threads(setup.threads)
    workshop = open_workshop(setup)
    try:
        connection.send(None)
        while True:
            for event in carry_out(workshop, connection.recv()):
                connection.send(event)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
