"""Keeps MLflow level with the storage, which is the truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.config.home import storage_url
from kdsearch.config.study import StudyConfig
from kdsearch.distill.record import Student, TrialRecord, students_of
from kdsearch.errors import KdsearchError
from kdsearch.front.members import front_of
from kdsearch.measure.scores import Scores
from kdsearch.report.chart import front_page
from kdsearch.search.lease import Lease
from kdsearch.search.store import StudyStore, open_store
from kdsearch.tracking.location import Tracking

if TYPE_CHECKING:
    from kdsearch.tracking.recorder import Recorder


def open_record(study: StudyConfig, tracking: Tracking, store: StudyStore, records: Iterable[TrialRecord]) -> Recorder:
    """The study's record in MLflow, level with the storage; raises KdsearchError where it cannot be opened."""
    from kdsearch.tracking.recorder import Recorder  # takes seconds to import, while the workers start

    recorder = Recorder(study, tracking, study_id=store.id)
    data, scores = store.data(), store.teacher()
    if data is not None:
        recorder.describe_data(data)
    if scores is not None:
        recorder.teacher(scores, store.teacher_curve())
    for record in records:
        recorder.trial(record)
    return recorder


def refresh_front(recorder: Recorder, study: StudyConfig, students: Sequence[Student], teacher: Scores | None) -> None:
    """Brings the front's marks, its chart and the study's figures up to date."""
    members = front_of(students, study.search.objectives)
    recorder.catch_up()
    if recorder.away:
        return
    recorder.front(student.number for student in members)
    recorder.chart(front_page(study, students=students, front=members, teacher=teacher))
    recorder.summary({"front_size": len(members), "finished_trials": len(students)})


def sync_study(study: StudyConfig, *, home: Path, tracking: Tracking) -> tuple[TrialRecord, ...]:
    """Brings MLflow level with the storage, and returns the ended trials; doing it again changes nothing.

    Raises SearchError where the study was never run or is being run, KdsearchError where MLflow cannot be reached.
    """
    open_store(study, home, create=False)
    tracking.require()
    with Lease(storage_url(home, study.name, study.storage), study.name):
        store = open_store(study, home, create=False)
        records = tuple(record for record in store.records() if record.outcome != "running")
        recorder = open_record(study, tracking, store, records)
        refresh_front(recorder, study, students_of(records), store.teacher())
        recorder.close(finished=store.complete())
        if recorder.away:
            raise KdsearchError(f"tracking: {tracking.shown} did not take all of it: {recorder.away}; try again")
    return records
