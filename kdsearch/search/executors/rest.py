"""A rest that the driver asks a worker to take, so that something can be timed on an idle processor."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from multiprocessing.context import SpawnContext

LONGEST_S = 300.0
"""A worker goes on after this whatever its driver does; one whose driver died is ended by another thread at once."""
ASKED, RESTING = 0, 1


class Rest:
    """Shared by the driver and one worker."""

    def __init__(self, context: SpawnContext, *, longest_s: float = LONGEST_S) -> None:
        self._flags = context.RawArray("b", 2)
        self._longest_s = longest_s

    def ask(self, process: int) -> None:
        """The driver: asks the worker to rest after the operation it is in."""
        self._flags[ASKED] = 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGUSR1)

    @property
    def is_resting(self) -> bool:
        """The driver: whether the worker rests now."""
        return bool(self._flags[RESTING])

    def end(self) -> None:
        """The driver: lets the worker go on."""
        self._flags[ASKED] = 0

    def obey(self) -> None:
        """The worker: from now on, rests when it is asked to."""
        signal.signal(signal.SIGUSR1, self._rest)

    def _rest(self, _number: int, _frame: object) -> None:
        until = time.monotonic() + self._longest_s
        self._flags[RESTING] = 1
        while self._flags[ASKED] and time.monotonic() < until:
            time.sleep(0.005)
        self._flags[RESTING] = 0
