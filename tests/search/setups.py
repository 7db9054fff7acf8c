"""What workers need, for tests of executors."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdsearch.config.study import StudyConfig
from kdsearch.distill.materials import Materials, Place
from kdsearch.search.preparation import read_images
from kdsearch.search.teachers import add_teacher
from kdsearch.workers.dispatcher import Dispatcher
from kdsearch.workers.inline import InlineExecutor
from kdsearch.workers.jobs import Event, Executor, Resources
from kdsearch.workers.watchdog import Watchdog

ONE_THREAD = Resources(device="cpu", threads=1)


def make_jobs(executor: Executor, *, retries: int = 2) -> Dispatcher:
    """Without jobs yet."""
    return Dispatcher(executor, study="tiny", watchdog=Watchdog(timeout=10), retries=retries)


@contextlib.contextmanager
def inline() -> Iterator[Dispatcher]:
    """Jobs of this process."""
    executor = InlineExecutor(ONE_THREAD)
    try:
        yield make_jobs(executor)
    finally:
        executor.close()


def finish(steps):
    """Goes to the end of a generator; returns what it yielded and what it returned."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as stop:
            return seen, stop.value


def until(executor: Executor, kind: type[Event] | tuple[type[Event], ...], *, seconds: float = 300) -> list[Event]:
    """What its workers sent until something of that kind came."""
    events: list[Event] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        events += executor.poll(0.2)
        if any(isinstance(event, kind) for event in events):
            return events
    pytest.fail(f"no {kind} within {seconds} s, but {events}")


def until_room(executor: Executor, *, seconds: float = 120) -> list[Event]:
    """What its workers sent until one of them was free."""
    events: list[Event] = []
    deadline = time.monotonic() + seconds
    while not executor.room():
        events += executor.poll(0.2)
        assert time.monotonic() < deadline, "the slot is lost"
    return events


def make_materials(study: StudyConfig, home: Path) -> Materials:
    """The study's images, split and teacher, made there."""
    with inline() as jobs:
        return finish(add_teacher(study, read_images(study, home), jobs, home=home, study_id="0"))[1]


def make_place(study: StudyConfig, home: Path) -> Place:
    """Where they then lie."""
    return make_materials(study, home).place(home)
