"""Runs a study, or resumes it: each of its repeats, one after another."""

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
    """One repeat; it runs while its events are read."""

    study: StudyConfig
    tracking: Tracking
    events: Generator[DriverEvent, None, tuple[TrialRecord, ...]]
    """They end with the records of the ended trials; closing them stops the repeat so that it can be resumed."""


def run(study: StudyConfig, *, home: Path, environment: Mapping[str, str]) -> Iterator[Run]:
    """The repeats of the study, the study itself where it has none; whoever asks for the next has read the last one's.

    Reading events raises KdsearchError where the study cannot start or continue.
    """
    for one in replicates_of(study):
        tracking = choose_tracking(one.tracking_uri, environment)
        yield Run(study=one, tracking=tracking, events=run_study(one, home=home, tracking=tracking))


def sync(
    study: StudyConfig, *, home: Path, environment: Mapping[str, str]
) -> Iterator[tuple[StudyConfig, tuple[TrialRecord, ...] | None]]:
    """Each repeat of the study with its ended trials, None where it was not run yet; as ``sync_study`` does.

    Raises SearchError where not even the first was run.
    """
    for place, one in enumerate(replicates_of(study)):
        try:
            yield one, sync_study(one, home=home, tracking=choose_tracking(one.tracking_uri, environment))
        except NotRunYetError:
            if place == 0:
                raise
            yield one, None


def sync_study(study: StudyConfig, *, home: Path, tracking: Tracking) -> tuple[TrialRecord, ...]:
    """Brings MLflow level with the storage, and returns the ended trials; doing it again changes nothing.

    Raises SearchError where the study was never run or is being run, KdsearchError where MLflow cannot be reached.
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
            raise KdsearchError(f"tracking: {tracking.shown} did not take all of it: {recorder.away}; try again")
        for kind in get_args(Kind):
            record(study, home, tracking=tracking, kind=kind)
    return records
