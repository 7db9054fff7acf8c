"""A pause that the driver asks a worker to make, so that something can be timed on an idle processor."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from multiprocessing.context import SpawnContext

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
