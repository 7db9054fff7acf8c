"""Writes that must not be lost: where a disk or a storage does not take them, the study waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TypeVar

from kdsearch.errors import SearchError, first_line
from kdsearch.files.home import storage_url
from kdsearch.search.events import Resumed, Waiting
from kdsearch.search.session import Session
from kdsearch.search.storage import STORAGE_ERRORS, heals

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0

T = TypeVar("T")


def retry(session: Session, write: Callable[[], T]) -> Generator[Waiting | Resumed, None, T]:
    """Carries the write out, again and again until it is taken; workers continue with their trials meanwhile.

    Raises SearchError where another driver has taken the study over, or where waiting would not help.
    """
    pause = FIRST_PAUSE_S
    waited = False
    while True:
        try:
            session.lease.check()
            written = write()
        except (*STORAGE_ERRORS, OSError) as error:
            study = session.study
            if not heals(error, storage_url(session.home, study.name, study.storage)):
                raise SearchError(
                    f"study {session.study.name} stops: {_first_line(error)}; waiting would not fix that. What is "
                    "finished is kept, and the same command resumes when its cause is fixed"
                ) from error
            waited = True
            yield Waiting(reason=_first_line(error))
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            continue
        if waited:
            session.jobs.watchdog.reset(now=time.monotonic())
            yield Resumed()
        return written


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return first_line(getattr(cause, "orig", None) or cause)
