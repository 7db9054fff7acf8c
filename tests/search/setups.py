"""What workers need, for tests of executors."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from kdsearch.campaign.driver import Campaign, train_all
from kdsearch.campaign.events import JobStarted
from kdsearch.campaign.preparation import read_images
from kdsearch.campaign.teachers import LackingTeacher, Teachers, add_teacher
from kdsearch.config.study import StudyConfig
from kdsearch.distill.materials import Materials, Place
from kdsearch.trials.record import makes_teacher, trial_of_job
from kdsearch.workers.dispatcher import Dispatcher, Watchdog
from kdsearch.workers.inline import InlineExecutor
from kdsearch.workers.jobs import Event, Executor, Resources

ONE_THREAD = Resources(device="cpu", threads=1)


class HeldLease:
    """A lease that is never taken over."""

    def check(self) -> None:
        """Does nothing."""


def make_campaign(executor: Executor, study: StudyConfig, home: Path, *, study_id: str = "0") -> Campaign:
    """A campaign with this executor and no jobs yet."""
    jobs = Dispatcher(executor, study="tiny", watchdog=Watchdog(timeout=10), retries=2)
    return Campaign(study=study, home=home, study_id=study_id, lease=HeldLease(), jobs=jobs)


@contextlib.contextmanager
def inline_campaign(study: StudyConfig, home: Path, *, study_id: str = "0") -> Iterator[Campaign]:
    """A campaign that trains in this process."""
    executor = InlineExecutor(ONE_THREAD)
    try:
        yield make_campaign(executor, study, home, study_id=study_id)
    finally:
        executor.close()


def train_teachers(
    campaign: Campaign, lacking: Sequence[LackingTeacher], *, threads: int | None = 1, every_s: float = 30.0
) -> Iterator[object]:
    """Trains these teachers; yields the campaign's events except job starts."""
    events = train_all(campaign, Teachers(campaign, lacking, threads=threads, checkpoint_every_s=every_s))
    with contextlib.closing(events):
        for event in events:
            if not isinstance(event, JobStarted):
                yield event


def finish(steps):
    """Consumes a generator; returns the values that it yielded and its return value."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as stop:
            return seen, stop.value


def until(executor: Executor, kind: type[Event] | tuple[type[Event], ...], *, seconds: float = 300) -> list[Event]:
    """The workers' events up to one of this kind."""
    events: list[Event] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        events += executor.poll(0.2)
        if any(isinstance(event, kind) for event in events):
            return events
    pytest.fail(f"no {kind} within {seconds} s, but {events}")


def until_room(executor: Executor, *, seconds: float = 120) -> list[Event]:
    """The workers' events until one of them is free."""
    events: list[Event] = []
    deadline = time.monotonic() + seconds
    while not executor.room():
        events += executor.poll(0.2)
        assert time.monotonic() < deadline, "no worker became free"
    return events


def trials_started(events: Iterable[object]) -> Iterator[int]:
    """The numbers of the trials that started, in order."""
    for event in events:
        if isinstance(event, JobStarted) and not makes_teacher(event.job):
            yield trial_of_job(event.job)


def make_materials(study: StudyConfig, home: Path) -> Materials:
    """The study's images, split and teacher, made in this home."""
    with inline_campaign(study, home) as campaign:
        return finish(add_teacher(campaign, read_images(study, home)))[1]


def create_parent(study: StudyConfig, home: Path) -> Place:
    """Makes the study's materials and returns their place."""
    return make_materials(study, home).place(home)
