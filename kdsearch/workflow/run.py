"""Runs or resumes a study, one repeat after another, and uploads it to MLflow."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from kdsearch.campaign.events import DriverEvent
from kdsearch.campaign.lease import Lease
from kdsearch.campaign.preparation import open_materials
from kdsearch.config.study import StudyConfig, replicates_of
from kdsearch.errors import KdsearchError, NotRunYetError
from kdsearch.files.home import storage_url
from kdsearch.search.run import open_record, refresh_front, run_study, show_members, without_pictures
from kdsearch.search.store import read_store
from kdsearch.statistics.confirmation import Kind
from kdsearch.tracking.location import Tracking, choose_tracking
from kdsearch.trials.record import TrialRecord, students_of
from kdsearch.workflow.confirm import record


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One repeat of a study; it runs while its events are read."""

    study: StudyConfig
    tracking: Tracking
    events: Generator[DriverEvent, None, tuple[TrialRecord, ...]]
    """Return the records of the ended trials; closing the generator stops the repeat so that it can be resumed."""


def run(study: StudyConfig, *, home: Path, environment: Mapping[str, str]) -> Iterator[Run]:
    """Yields the repeats of the study, or the study itself if it has none. Read all events of one before the next.

    Reading events raises KdsearchError if the study cannot start or continue.
    """
    for one in replicates_of(study):
        tracking = choose_tracking(one.tracking_uri, environment)
        yield Run(study=one, tracking=tracking, events=run_study(one, home=home, tracking=tracking))


def sync(
    study: StudyConfig, *, home: Path, environment: Mapping[str, str]
) -> Iterator[tuple[StudyConfig, tuple[TrialRecord, ...] | None]]:
    """Syncs each repeat with ``sync_study`` and yields it with its ended trials; with None if it was not run yet.

    Raises SearchError if the study was never run.
    """
    for place, one in enumerate(replicates_of(study)):
        try:
            yield one, sync_study(one, home=home, tracking=choose_tracking(one.tracking_uri, environment))
        except NotRunYetError:
            if place == 0:
                raise
            yield one, None


def sync_study(study: StudyConfig, *, home: Path, tracking: Tracking) -> tuple[TrialRecord, ...]:
    """Uploads everything that MLflow lacks from the Optuna database, and returns the ended trials.

    Doing it again changes nothing. Raises SearchError if the study was never run or is running now, and KdsearchError
    if MLflow cannot be reached.
    """
    read_store(study, home)
    tracking.require(database=True)
    with Lease(storage_url(home, study.name, study.storage), study.name):
        store = read_store(study, home)
        bound = store.bound()
        records = tuple(record for record in store.records() if record.outcome != "running")
        recorder = open_record(study, tracking, bound=bound, records=records)
        students = students_of(records)
        refresh_front(recorder, study, students=students, bound=bound, at_once=True)
        recorder.close(finished=recorder.was_finished or store.complete())
        if without_pictures(recorder, students, study=study, home=home):
            materials = open_materials(study, home, data=bound.data, teacher_id=bound.teacher_id)
            show_members(recorder, students, study=study, materials=materials, home=home)
        if recorder.away:
            raise KdsearchError(f"tracking: {tracking.shown} did not accept everything: {recorder.away}; try again")
        for kind in get_args(Kind):
            record(study, home, tracking=tracking, kind=kind)
    return records
