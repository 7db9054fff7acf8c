"""What the driver holds while it searches, and how its writes wait for a storage that is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from kdsearch.config.study import StudyConfig
from kdsearch.distill.materials import Materials
from kdsearch.errors import SearchError, first_line
from kdsearch.files.home import checkpoint_folder, storage_url
from kdsearch.search.events import Resumed, Waiting
from kdsearch.search.lease import Lease
from kdsearch.search.pruners import Pruner
from kdsearch.search.storage import STORAGE_ERRORS, Bound, heals
from kdsearch.search.store import StudyStore
from kdsearch.trials.record import Student, TrialRecord, students_of
from kdsearch.workers.dispatcher import Dispatcher

if TYPE_CHECKING:
    from kdsearch.tracking.recorder import Recorder


FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
GIVES_UP_AFTER_S = 12 * 3600.0
"""A night: whoever is to free a disk or to start a server may be asleep."""

T = TypeVar("T")


class StudyState:
    """What the storage holds, kept in memory: it is not read again, so that it may be away for a while."""

    def __init__(self, records: Iterable[TrialRecord], *, target: int, bound: Bound) -> None:
        """``target`` is how many trials there are to be, rejected ones not counted."""
        self.bound = bound
        self._ended = {record.number: record for record in records if record.outcome != "running"}
        self._target = target

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """Ended trials by number."""
        return tuple(self._ended[number] for number in sorted(self._ended))

    @property
    def students(self) -> tuple[Student, ...]:
        """Finished trials by number."""
        return students_of(self.records)

    @property
    def remaining(self) -> int:
        """Trials that have not ended, asked for or not."""
        return max(0, self._target - sum(record.outcome != "rejected" for record in self._ended.values()))

    def end(self, record: TrialRecord) -> None:
        """A trial ended."""
        self._ended[record.number] = record


@dataclass(slots=True, kw_only=True)
class Session:
    """One driver's parts."""

    study: StudyConfig
    home: Path
    store: StudyStore
    lease: Lease
    state: StudyState
    jobs: Dispatcher
    recorder: Recorder
    materials: Materials
    pruner: Pruner
    exhausted: bool = False
    """Whether a grid has no more recipes."""

    @property
    def unasked(self) -> int:
        """Trials whose recipe is still to be asked for."""
        return max(0, self.state.remaining - self.jobs.open)

    def checkpoint_of(self, job_id: str) -> str:
        """Where a job's state lies while it runs."""
        place = checkpoint_folder(
            self.home, self.study.name, self.study.search.checkpoints, study_id=self.state.bound.id
        )
        return f"{place}/{job_id}.checkpoint"


class Writing(Protocol):
    """Who writes to a study's storage."""

    @property
    def study(self) -> StudyConfig:
        """Whose storage it is."""
        ...

    @property
    def home(self) -> Path:
        """Where the study's files lie."""
        ...

    @property
    def lease(self) -> Lease:
        """The driver's hold on the study."""
        ...

    @property
    def jobs(self) -> Dispatcher:
        """What runs meanwhile."""
        ...


def retry(
    session: Writing, write: Callable[[], T], *, gives_up_after_s: float = GIVES_UP_AFTER_S
) -> Generator[Waiting | Resumed, None, T]:
    """Carries the write out, again and again until it is taken; workers continue with their trials meanwhile.

    Raises SearchError if another driver has taken the study over, or if waiting would not help or did not for so long.
    """

    def checked() -> T:
        session.lease.check()
        return write()

    return (
        yield from until_written(
            checked, study=session.study, home=session.home, jobs=session.jobs, gives_up_after_s=gives_up_after_s
        )
    )


def until_written(
    write: Callable[[], T],
    *,
    study: StudyConfig,
    home: Path,
    jobs: Dispatcher,
    what: str = "the storage does not take the study",
    gives_up_after_s: float = GIVES_UP_AFTER_S,
) -> Generator[Waiting | Resumed, None, T]:
    """Carries the write out until it is taken, whether or not there is a session; ``what`` is what a wait is for.

    Raises SearchError if waiting would not help, or did not for so long.
    """
    pause, began = FIRST_PAUSE_S, time.monotonic()
    waited = False
    while True:
        try:
            written = write()
        except (*STORAGE_ERRORS, OSError) as error:
            gone = time.monotonic() - began
            if not heals(error, storage_url(home, study.name, study.storage)) or gone > gives_up_after_s:
                help_ = f"waiting {gone / 3600:.1f} hours did not fix that" if waited else "waiting would not fix that"
                raise SearchError(
                    f"study {study.name} stops: {_first_line(error)}; {help_}. What is finished is kept, and the same "
                    "command resumes when its cause is fixed"
                ) from error
            waited = True
            yield Waiting(reason=_first_line(error), what=what)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            continue
        if waited:
            jobs.watchdog.reset(now=time.monotonic())
            yield Resumed()
        return written


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return first_line(getattr(cause, "orig", None) or cause)
