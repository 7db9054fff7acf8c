"""The driver: alone talks to Optuna and to MLflow, and tells what happens as a stream of events."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.config.home import study_folder, weights_path
from kdsearch.config.quantity import format_quantity
from kdsearch.config.search import Limits
from kdsearch.config.study import StudyConfig
from kdsearch.distill.record import TrialRecord
from kdsearch.distill.student import cost_of
from kdsearch.distill.teacher import TrainedTeacher
from kdsearch.errors import SearchError
from kdsearch.front.members import front_of
from kdsearch.measure.counts import Cost
from kdsearch.report.chart import front_page
from kdsearch.search.events import DriverEvent, Ended, Prepared, Reading, Searching, Started
from kdsearch.search.executors.tasks import Event, Executor, Progressed, Succeeded, Task
from kdsearch.search.ledger import Ledger
from kdsearch.search.lock import only_driver
from kdsearch.search.preparation import prepare, start_executor
from kdsearch.search.store import Proposal, StudyStore, open_store
from kdsearch.tracking.location import Tracking

if TYPE_CHECKING:
    from kdsearch.tracking.recorder import Recorder

POLL_S = 0.2
REFRESH_EVERY_S = 20.0
"""How often the front in MLflow is brought up to date."""
MOST_REJECTIONS = 500
"""In a row; more than that and the limits leave next to nothing of the space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """What the driver holds while it searches."""

    study: StudyConfig
    home: Path
    store: StudyStore
    ledger: Ledger
    executor: Executor
    recorder: Recorder
    teacher: TrainedTeacher


def run_study(
    study: StudyConfig, *, home: Path, tracking: Tracking
) -> Generator[DriverEvent, None, tuple[TrialRecord, ...]]:
    """Carries the study out, or on, until its trials are done; returns the records of the ended ones.

    A study that is done yields nothing. Closing the generator, or an interrupt, ends the workers; what was running
    begins again with the next call, under its number. Raises KdsearchError where the study cannot start or go on.
    """
    with only_driver(study_folder(home, study.name)):
        store = open_store(study, home, create=True)
        if store.complete():
            return store.records()
        tracking.require()
        yield Reading()
        prepared = yield from prepare(study, home)
        teacher = prepared.teacher
        store.bind(data=prepared.splits.fingerprint, teacher=teacher.folder.name, scores=teacher.scores)
        waiting = store.abandoned()
        ledger = Ledger(store.records(), target=study.search.trials)
        executor = start_executor(study, home, prepared)
        try:
            recorder = _open_recorder(study, tracking, prepared, ledger, study_id=store.id)
            session = _Session(
                study=study,
                home=home,
                store=store,
                ledger=ledger,
                executor=executor,
                recorder=recorder,
                teacher=teacher,
            )
            yield from _record_search(session, waiting)
        finally:
            executor.close()
        return ledger.records


def _open_recorder(
    study: StudyConfig, tracking: Tracking, prepared: Prepared, ledger: Ledger, *, study_id: str
) -> Recorder:
    """The study's record, level with the storage."""
    from kdsearch.tracking.recorder import Recorder  # takes seconds to import, while the workers start

    recorder = Recorder(study, tracking, study_id=study_id)
    recorder.describe_data(prepared.dataset, prepared.splits)
    recorder.teacher(prepared.teacher)
    for record in ledger.records:
        recorder.trial(record)
    return recorder


def _record_search(session: _Session, waiting: list[Proposal]) -> Iterator[DriverEvent]:
    """Searches, and records what ends; the front in MLflow is brought up to date now and then, and at the end."""
    recorder = session.recorder
    target = session.study.search.trials
    finished = False
    try:
        yield Searching(records=session.ledger.records, target=target, experiment_id=recorder.experiment_id)
        refreshed = time.monotonic()
        for event in _search(session, waiting):
            if isinstance(event, Ended):
                recorder.trial(event.record)
                if time.monotonic() - refreshed > REFRESH_EVERY_S:
                    _refresh_front(session)
                    refreshed = time.monotonic()
            yield event
        finished = True
    finally:
        _refresh_front(session)
        recorder.close(finished=finished)


def _search(session: _Session, waiting: list[Proposal]) -> Iterator[DriverEvent]:
    """Asks, dispatches and tells until the study has its trials; ``waiting`` were begun by a former driver."""
    executor, ledger = session.executor, session.ledger
    exhausted = False
    while True:
        while executor.room() and (waiting or (ledger.remaining and not exhausted)):
            proposal = waiting.pop(0) if waiting else (yield from _ask_within_limits(session))
            if proposal is None:
                exhausted = True
            else:
                yield _dispatch(session, proposal)
        if not ledger.running:
            return
        for event in executor.poll(POLL_S):
            yield _take(session, event)


def _dispatch(session: _Session, proposal: Proposal) -> Started:
    number, recipe = proposal.number, proposal.recipe
    weights = weights_path(session.home, session.study.name, number)
    session.executor.submit(Task(number=number, recipe=recipe, weights=weights))
    session.ledger.begin(number)
    return Started(number=number, recipe=recipe, cost=cost_of(recipe, size=session.study.data.size))


def _take(session: _Session, event: Event) -> DriverEvent:
    """Writes down what a worker sent."""
    if isinstance(event, Progressed):
        session.ledger.report(event.number, event.report)
        return event
    curve = session.ledger.curve(event.number)
    if isinstance(event, Succeeded):
        record = session.store.finish(event.number, event.trained.scores, curve)
    else:
        record = session.store.fail(event.number, event.reason, curve)
    session.ledger.end(record)
    return Ended(record=record)


def _ask_within_limits(session: _Session) -> Generator[DriverEvent, None, Proposal | None]:
    """The next recipe within the hard limits, None where a grid has no more; others are rejected on the way."""
    search = session.study.search
    for _ in itertools.count() if search.sampler == "grid" else range(MOST_REJECTIONS):
        proposal = session.store.ask()
        if proposal is None:
            return None
        reason = over_limit(cost_of(proposal.recipe, size=session.study.data.size), search.limits)
        if not reason:
            return proposal
        record = session.store.reject(proposal.number, reason)
        session.ledger.end(record)
        yield Ended(record=record)
    raise SearchError(
        f"search.limits: {MOST_REJECTIONS} recipes in a row were over them; widen them, or search smaller students"
    )


def over_limit(cost: Cost, limits: Limits) -> str:
    """Why the cost is over a hard limit; empty where it is not."""
    for name in ("params", "macs"):
        limit, value = getattr(limits, name), getattr(cost, name)
        if limit is not None and value > limit:
            return f"{format_quantity(value)} {name} are over the limit of {format_quantity(limit)}"
    return ""


def _refresh_front(session: _Session) -> None:
    study, students = session.study, session.ledger.students
    members = front_of(students, study.search.objectives)
    session.recorder.front(student.number for student in members)
    session.recorder.chart(front_page(study, students=students, front=members, teacher=session.teacher.scores))
    session.recorder.summary({"front_size": len(members), "finished_trials": len(students)})
