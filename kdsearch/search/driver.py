"""The driver of a search. Only drivers write to Optuna and MLflow; progress is reported as events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from kdsearch.config.study import StudyConfig
from kdsearch.data.neighbours import summarise
from kdsearch.distill.batches import choose_device
from kdsearch.files.home import storage_url, study_folder
from kdsearch.files.whole import remove_leftovers
from kdsearch.models.costs import require_comparable, require_possible_limits
from kdsearch.search.events import DriverEvent, Ended, MaterialsReady, Reading, Searching, TrackingAway, TrackingBack
from kdsearch.search.lease import Lease
from kdsearch.search.mlflow_sync import begin_record, fill_record, refresh_front, show_members
from kdsearch.search.preparation import clear_checkpoints, read_images, start_executor, student_weights
from kdsearch.search.pruners import build_pruner
from kdsearch.search.session import Session, StudyState, until_written
from kdsearch.search.sink import TrialSink
from kdsearch.search.storage import Bound, explained, make_place
from kdsearch.search.store import Proposal, StudyStore, open_store
from kdsearch.search.submission import is_done, recover, submit
from kdsearch.search.teachers import add_teacher
from kdsearch.tracking.location import Tracking
from kdsearch.trials.record import TrialRecord
from kdsearch.workers.dispatcher import Dispatcher, Watchdog
from kdsearch.workers.jobs import Executor
from kdsearch.workers.ray_cluster import require_ray

REFRESH_EVERY_S = 20.0
"""How often the front in MLflow is brought up to date."""


def run_study(
    study: StudyConfig, *, home: Path, tracking: Tracking, refresh_every_s: float = REFRESH_EVERY_S
) -> Generator[DriverEvent, None, tuple[TrialRecord, ...]]:
    """Runs the study, or resumes it, until its trials are done; returns the records of the ended ones.

    A study that is done yields nothing. Closing the generator, or an interrupt, ends the workers; what was running
    resumes from its checkpoint with the next call, under its number. Raises KdsearchError where the study cannot start
    or continue. The front in MLflow is brought up to date every ``refresh_every_s`` seconds.
    """
    storage = storage_url(home, study.name, study.storage)
    tracking.require_apart_from(storage)
    require_ray(study.search)
    require_comparable(study)
    with explained(study.name):
        make_place(storage)
    with Lease(storage, study.name) as lease:
        store = open_store(study, home, create=True)
        with explained(study.name):
            abandoned = store.abandoned()
            records = store.records()
            study_id = store.id
            if store.complete():
                return records
        require_possible_limits(study)
        tracking.require(database=True)
        clear_checkpoints(study, home, records, study_id=study_id)
        for folder in (home / "teachers", study_folder(home, study.name) / "trials"):
            remove_leftovers(folder, now=time.time())
        session = yield from _prepare(
            study, home, tracking, store=store, lease=lease, records=records, study_id=study_id
        )
        try:
            yield from _record(session, _search(session, abandoned), every_s=refresh_every_s)
        finally:
            session.jobs.executor.close()
        return session.state.records


def _prepare(
    study: StudyConfig,
    home: Path,
    tracking: Tracking,
    *,
    store: StudyStore,
    lease: Lease,
    records: tuple[TrialRecord, ...],
    study_id: str,
) -> Generator[DriverEvent, None, Session]:
    """Images, workers, teacher and the record in MLflow."""
    yield Reading()
    device = choose_device(study.device)
    images, begun_with = read_images(study, home), student_weights(study)
    summary = summarise(images.dataset, images.splits, images.unlabelled)
    with explained(study.name):
        store.require_same(data=summary, student_weights=begun_with)
    executor = start_executor(study, device=device.type)
    try:
        jobs = _dispatcher(study, executor, records)
        recorder = begin_record(study, tracking, study_id=study_id)  # before hours of training
        with contextlib.ExitStack() as stopped:
            stopped.callback(recorder.close, finished=False)
            materials = yield from add_teacher(study, images, jobs, home=home, study_id=study_id)
            yield MaterialsReady(materials=materials, device=device.type, caution=summary.caution)

            def bind() -> Bound:
                lease.check()
                return store.bind(data=summary, teacher=materials.teacher, student_weights=begun_with)

            bound = yield from until_written(bind, study=study, home=home, jobs=jobs)
            state = StudyState(records, target=study.search.trials, bound=bound)
            fill_record(recorder, bound=bound, records=state.records)
            stopped.pop_all()
        return Session(
            study=study,
            home=home,
            store=store,
            lease=lease,
            state=state,
            jobs=jobs,
            recorder=recorder,
            materials=materials,
            pruner=build_pruner(study.search.pruning),
        )
    except BaseException:
        executor.close()
        raise


def _dispatcher(study: StudyConfig, executor: Executor, records: tuple[TrialRecord, ...]) -> Dispatcher:
    return Dispatcher(
        executor,
        study=study.name,
        watchdog=Watchdog(timeout=study.search.heartbeat_timeout),
        retries=study.search.retries,
        lost={record.job: record.lost for record in records if record.lost},
    )


def _search(session: Session, abandoned: list[Proposal]) -> Iterator[DriverEvent]:
    """Asks, dispatches and tells until the study has its trials."""
    yield from recover(session, abandoned)
    sink = TrialSink(session)
    while True:
        yield from submit(session)
        if is_done(session):
            return
        yield from session.jobs.poll(sink)


def _record(session: Session, events: Iterator[DriverEvent], *, every_s: float) -> Iterator[DriverEvent]:
    """Records what ends; the front in MLflow is brought up to date now and then if a trial ended, and at the end.

    Nothing is read from the storage for it, which may be away.
    """
    recorder, study, state = session.recorder, session.study, session.state
    finished, away, is_stale = False, "", True
    try:
        yield Searching(records=state.records, target=study.search.trials, page=recorder.page)
        refreshed = time.monotonic()
        for event in events:
            if isinstance(event, Ended):
                recorder.trial(event.record)
                is_stale = True
            if is_stale and time.monotonic() - refreshed > every_s:
                is_stale = not refresh_front(recorder, study, students=state.students, bound=state.bound)
                refreshed = time.monotonic()
            if recorder.away != away:
                away = recorder.away
                yield TrackingAway(reason=away) if away else TrackingBack()
            yield event
        if away:
            recorder.catch_up(at_once=True)
            if not recorder.away:
                yield TrackingBack()
        finished = True
    finally:
        try:
            refresh_front(recorder, study, students=state.students, bound=state.bound, at_once=True)
            if finished:
                show_members(recorder, state.students, study=study, materials=session.materials, home=session.home)
        finally:
            recorder.close(finished=finished)
