"""Runs a search and keeps MLflow up to date with the Optuna database, which is authoritative."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.campaign.driver import Campaign, campaign, train_all
from kdsearch.campaign.events import (
    DataReady,
    DriverEvent,
    LoadingData,
    SearchStarted,
    TrackingDown,
    TrackingRestored,
    TrialEnded,
)
from kdsearch.campaign.lease import Lease
from kdsearch.campaign.preparation import clear_checkpoints, read_images, student_weights
from kdsearch.campaign.storage import create_parent, storage_errors
from kdsearch.campaign.teachers import add_teacher
from kdsearch.config.study import StudyConfig
from kdsearch.data.neighbors import summarize
from kdsearch.distill.batches import choose_device
from kdsearch.distill.materials import Materials
from kdsearch.files.atomic import atomic_write, remove_leftovers
from kdsearch.files.home import overlays_path, storage_url, study_folder, weights_path
from kdsearch.front.dominance import front_of
from kdsearch.models.costs import require_comparable, require_possible_limits
from kdsearch.report.charts import front_page
from kdsearch.report.table import study_note
from kdsearch.search.estimate import estimate
from kdsearch.search.optuna_study import Bound
from kdsearch.search.pictures import Pictures
from kdsearch.search.pruners import build_pruner
from kdsearch.search.samples import keep_samples
from kdsearch.search.store import Proposal, open_store
from kdsearch.search.trials import StudyState, Trials
from kdsearch.statistics.selection import standing_metrics, standings_of
from kdsearch.tracking.location import Tracking
from kdsearch.trials.record import Student, TrialRecord, job_of_teacher
from kdsearch.workers.ray_cluster import require_ray

if TYPE_CHECKING:
    from kdsearch.tracking.recorder import Recorder

REFRESH_EVERY_S = 20.0
"""How often the front in MLflow is updated."""

logger = logging.getLogger(__name__)


def run_study(
    study: StudyConfig, *, home: Path, tracking: Tracking, refresh_every_s: float = REFRESH_EVERY_S
) -> Generator[DriverEvent, None, tuple[TrialRecord, ...]]:
    """Runs or resumes the study until all its trials have ended; yields events and returns the records of the trials.

    A finished study yields no events. Closing the generator, or an interrupt, ends the workers; the next call resumes
    running trials from their checkpoints. The front in MLflow is updated every ``refresh_every_s`` seconds. Raises
    KdsearchError if the study cannot start or continue.
    """
    storage = storage_url(home, study.name, study.storage)
    tracking.require_apart_from(storage)
    require_ray(study.search)
    require_comparable(study)
    with storage_errors(study.name):
        create_parent(storage)
    with Lease(storage, study.name) as lease:
        store = open_store(study, home, create=True)
        with storage_errors(study.name):
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
        yield LoadingData()
        images, weights = read_images(study, home), student_weights(study)
        summary = summarize(images.dataset, images.splits, images.unlabelled)
        with storage_errors(study.name):
            store.require_same(data=summary, student_weights=weights)
        keep_samples(study, images, home)
        if (about := estimate(study, images, home, students=study.search.trials - len(records))) is not None:
            yield about
        lost = {record.job: record.lost for record in records if record.lost}
        with campaign(study, home, study_id=study_id, lease=lease, lost=lost) as started:
            recorder = begin_record(study, tracking, study_id=study_id)  # reports errors before hours of training
            with contextlib.ExitStack() as stopped:
                stopped.callback(recorder.close, finished=False)
                materials = yield from add_teacher(started, images)
                device = choose_device(study.device).type
                yield DataReady(materials=materials, device=device, caution=summary.caution)
                bind = partial(store.bind, data=summary, teacher=materials.teacher, student_weights=weights)
                state = StudyState(records, target=study.search.trials, bound=(yield from started.write(bind)))
                fill_record(recorder, bound=state.bound, records=state.records)
                stopped.pop_all()
            pruner = build_pruner(study.search.pruning)
            trials = Trials(started, store=store, state=state, materials=materials, pruner=pruner)
            yield from _recorded(started, trials, abandoned, recorder=recorder, every_s=refresh_every_s)
        return state.records


def _recorded(
    started: Campaign, trials: Trials, abandoned: Sequence[Proposal], *, recorder: Recorder, every_s: float
) -> Iterator[DriverEvent]:
    """Trains the trials and records each in MLflow; updates the front there every ``every_s`` and at the end.

    Reads nothing from the Optuna database, which may be unreachable.
    """
    study, state = started.study, trials.state
    finished, away, is_stale = False, "", True
    try:
        yield SearchStarted(records=state.records, target=study.search.trials, page=recorder.page)
        refreshed = time.monotonic()
        for event in itertools.chain(trials.recover(abandoned), train_all(started, trials)):
            if isinstance(event, TrialEnded):
                recorder.trial(event.record)
                is_stale = True
            if is_stale and time.monotonic() - refreshed > every_s:
                is_stale = not refresh_front(recorder, study, students=state.students, bound=state.bound)
                refreshed = time.monotonic()
            if recorder.away != away:
                away = recorder.away
                yield TrackingDown(reason=away) if away else TrackingRestored()
            yield event
        if away:
            recorder.catch_up(at_once=True)
            if not recorder.away:
                yield TrackingRestored()
        finished = True
    finally:
        try:
            refresh_front(recorder, study, students=state.students, bound=state.bound, at_once=True)
            if finished:
                show_members(recorder, state.students, study=study, materials=trials.materials, home=started.home)
        finally:
            recorder.close(finished=finished)


def open_record(study: StudyConfig, tracking: Tracking, *, bound: Bound, records: Iterable[TrialRecord]) -> Recorder:
    """Opens the study's MLflow runs and adds what is missing; raises KdsearchError if they cannot be opened."""
    recorder = begin_record(study, tracking, study_id=bound.id)
    fill_record(recorder, bound=bound, records=records)
    return recorder


def begin_record(study: StudyConfig, tracking: Tracking, *, study_id: str) -> Recorder:
    """Opens the study's MLflow runs without adding anything; raises KdsearchError if they cannot be opened."""
    from kdsearch.tracking.recorder import Recorder  # takes seconds to import, while workers start

    return Recorder(study, tracking, study_id=study_id)


def fill_record(recorder: Recorder, *, bound: Bound, records: Iterable[TrialRecord]) -> None:
    """Adds to MLflow whatever it lacks of the data, the teacher and the trials."""
    if bound.data is not None:
        recorder.describe_data(bound.data)
    if bound.teacher is not None:
        recorder.teacher(job_of_teacher(bound.teacher_id), bound.teacher, bound.teacher_curve)
    for record in records:
        recorder.trial(record)


def refresh_front(
    recorder: Recorder, study: StudyConfig, *, students: Sequence[Student], bound: Bound, at_once: bool = False
) -> bool:
    """Updates the front's tags, its chart, and the study's page and metrics in MLflow; returns whether it succeeded.

    ``at_once``, for the end of a study, also computes how certain each student's place on the front is, which takes a
    moment, and retries even if MLflow has just refused a write.
    """
    teacher, data, objectives = bound.teacher, bound.data, study.search.objectives
    groups = data.validation_groups if data is not None else None
    standings = standings_of(students, objectives, groups) if at_once else {}
    members = front_of(students, objectives, study.search.limits)
    recorder.catch_up(at_once=at_once)
    if recorder.away:
        return False
    recorder.front(student.job for student in members)
    for student in students:
        recorder.standing(student.job, standing_metrics(standings, student.number))
    recorder.chart(front_page(study, students=students, front=members, teacher=teacher, standings=standings))
    note = study_note(study, data=data, teacher=teacher, members=members, students=len(students), standings=standings)
    recorder.note(note)
    recorder.summary({"front_size": len(members), "finished_trials": len(students)})
    return not recorder.away


def show_members(
    recorder: Recorder, students: Sequence[Student], *, study: StudyConfig, materials: Materials, home: Path
) -> None:
    """Adds weights and overlays to the runs of students on the front that lack them.

    Skips students whose weights are on another machine, with a warning.
    """
    predictions = Pictures(study, materials, home)
    name = study.name
    elsewhere = []
    for member in without_pictures(recorder, students, study=study, home=home):
        if not predictions.has_weights(member):
            elsewhere.append(str(member.number))
            continue
        content = predictions.sheet(member)
        try:
            atomic_write(str(overlays_path(home, name, member.job)), content)
        except OSError as error:
            logger.warning("cannot write the overlays of trial %s: %s; run kdsearch sync later", member.number, error)
        weights = weights_path(home, name, member.job).read_bytes()
        recorder.member(member.job, weights=weights, overlays=content)
    if elsewhere:
        logger.warning("no overlays for trials %s: their weights are on another machine", ", ".join(elsewhere))


def without_pictures(
    recorder: Recorder, students: Sequence[Student], *, study: StudyConfig, home: Path
) -> list[Student]:
    """The students on the front that have no overlays yet in their run or in their folder here."""
    return [
        member
        for member in front_of(students, study.search.objectives, study.search.limits)
        if recorder.lacks_pictures(member.job) or not overlays_path(home, study.name, member.job).is_file()
    ]
