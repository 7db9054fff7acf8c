"""The driver: alone talks to Optuna and to MLflow, and tells what happens as a stream of events."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.config.home import weights_path
from kdsearch.config.quantity import format_quantity
from kdsearch.config.search import Limits
from kdsearch.config.study import StudyConfig
from kdsearch.distill.record import TrialRecord
from kdsearch.distill.student import cost_of
from kdsearch.errors import SearchError
from kdsearch.front.members import front_of
from kdsearch.measure.counts import Cost
from kdsearch.report.chart import front_page
from kdsearch.search.events import DriverEvent, Ended, Prepared, Reading, Searching, Started
from kdsearch.search.executors.tasks import Executor, Progressed, Succeeded, Task
from kdsearch.search.ledger import Ledger
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


def run_study(
    study: StudyConfig, home: Path, tracking: Tracking
) -> Generator[DriverEvent, None, tuple[TrialRecord, ...]]:
    """Carries the study out, or on, until its trials are done; returns the records of the ended ones.

    A study that is done yields nothing. Closing the generator, or an interrupt, ends the workers; what was running goes
    on with the next call. Raises KdsearchError where the study cannot start or go on.
    """
    store = open_store(study, home, create=True)
    if store.complete():
        return store.records()
    yield Reading()
    prepared = yield from prepare(study, home)
    store.bind(prepared.splits.fingerprint, prepared.teacher.scores)
    waiting = store.abandoned()
    ledger = Ledger(store.records(), target=study.search.trials)
    executor = start_executor(study, home, prepared)
    try:
        recorder = _open_recorder(study, tracking, prepared, ledger)
        finished = False
        try:
            yield Searching(records=ledger.records, target=study.search.trials, experiment_id=recorder.experiment_id)
            yield from _recorded(
                _search(study, home, store, executor, ledger, waiting), study, ledger, recorder, prepared
            )
            finished = True
        finally:
            _refresh_front(study, ledger, recorder, prepared)
            recorder.close(finished=finished)
    finally:
        executor.close()
    return ledger.records


def _open_recorder(study: StudyConfig, tracking: Tracking, prepared: Prepared, ledger: Ledger) -> Recorder:
    """The study's record, level with the storage."""
    from kdsearch.tracking.recorder import Recorder  # takes seconds to import, while the workers start

    recorder = Recorder(study, tracking)
    recorder.describe_data(prepared.dataset, prepared.splits)
    recorder.teacher(prepared.teacher)
    for record in ledger.records:
        recorder.trial(record)
    return recorder


def _recorded(
    events: Iterator[DriverEvent], study: StudyConfig, ledger: Ledger, recorder: Recorder, prepared: Prepared
) -> Iterator[DriverEvent]:
    refreshed = time.monotonic()
    for event in events:
        if isinstance(event, Ended):
            recorder.trial(event.record)
            if time.monotonic() - refreshed > REFRESH_EVERY_S:
                _refresh_front(study, ledger, recorder, prepared)
                refreshed = time.monotonic()
        yield event


def _search(
    study: StudyConfig, home: Path, store: StudyStore, executor: Executor, ledger: Ledger, waiting: list[Proposal]
) -> Iterator[DriverEvent]:
    """Asks, dispatches and tells until the study has its trials; ``waiting`` were begun by a former driver."""
    exhausted = False
    while True:
        while executor.room() and (waiting or (ledger.remaining and not exhausted)):
            proposal = waiting.pop(0) if waiting else (yield from _ask_within_limits(study, store, ledger))
            if proposal is None:
                exhausted = True
                continue
            executor.submit(_task(study, home, proposal))
            ledger.begin(proposal.number)
            yield Started(
                number=proposal.number, recipe=proposal.recipe, cost=cost_of(proposal.recipe, size=study.data.size)
            )
        if not ledger.running:
            return
        for event in executor.poll(POLL_S):
            if isinstance(event, Progressed):
                ledger.report(event.number, event.report)
                yield event
                continue
            if isinstance(event, Succeeded):
                record = store.finish(event.number, event.trained.scores, ledger.curve(event.number))
            else:
                record = store.fail(event.number, event.reason, ledger.curve(event.number))
            ledger.end(record)
            yield Ended(record=record)


def _task(study: StudyConfig, home: Path, proposal: Proposal) -> Task:
    weights = weights_path(home, study.name, proposal.number)
    return Task(number=proposal.number, recipe=proposal.recipe, weights=weights)


def _ask_within_limits(
    study: StudyConfig, store: StudyStore, ledger: Ledger
) -> Generator[DriverEvent, None, Proposal | None]:
    """The next recipe within the hard limits, None where a grid has no more; others are rejected on the way."""
    for _ in range(MOST_REJECTIONS):
        proposal = store.ask()
        if proposal is None:
            return None
        reason = over_limit(cost_of(proposal.recipe, size=study.data.size), study.search.limits)
        if not reason:
            return proposal
        record = store.reject(proposal.number, reason)
        ledger.end(record)
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


def _refresh_front(study: StudyConfig, ledger: Ledger, recorder: Recorder, prepared: Prepared) -> None:
    students = ledger.students
    members = front_of(students, study.search.objectives)
    recorder.front(student.number for student in members)
    teacher = prepared.teacher.scores
    recorder.chart(
        front_page(f"Study {study.name}", students, members, (teacher.params, teacher.dice), study.references)
    )
    recorder.summary({"front_size": len(members), "finished_trials": len(students)})
