"""Keeps MLflow level with the storage, which is the truth."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.config.study import StudyConfig
from kdsearch.distill.materials import Materials
from kdsearch.files.home import overlays_path, weights_path
from kdsearch.files.whole import write_whole
from kdsearch.front.dominance import front_of
from kdsearch.report.chart import front_page
from kdsearch.report.note import study_note
from kdsearch.search.pictures import Pictures
from kdsearch.search.storage import Bound
from kdsearch.statistics.selection import standing_metrics, standings_of
from kdsearch.tracking.location import Tracking
from kdsearch.trials.record import Student, TrialRecord, job_of_teacher

if TYPE_CHECKING:
    from kdsearch.tracking.recorder import Recorder

logger = logging.getLogger(__name__)


def open_record(study: StudyConfig, tracking: Tracking, *, bound: Bound, records: Iterable[TrialRecord]) -> Recorder:
    """The study's record in MLflow, level with the storage; raises KdsearchError where it cannot be opened."""
    recorder = begin_record(study, tracking, study_id=bound.id)
    fill_record(recorder, bound=bound, records=records)
    return recorder


def begin_record(study: StudyConfig, tracking: Tracking, *, study_id: str) -> Recorder:
    """The study's record in MLflow before anything is trained; raises KdsearchError where it cannot be opened."""
    from kdsearch.tracking.recorder import Recorder  # takes seconds to import, while the workers start

    return Recorder(study, tracking, study_id=study_id)


def fill_record(recorder: Recorder, *, bound: Bound, records: Iterable[TrialRecord]) -> None:
    """Brings the record level with the storage."""
    if bound.data is not None:
        recorder.describe_data(bound.data)
    if bound.teacher is not None:
        recorder.teacher(job_of_teacher(bound.teacher_id), bound.teacher, bound.teacher_curve)
    for record in records:
        recorder.trial(record)


def refresh_front(
    recorder: Recorder, study: StudyConfig, *, students: Sequence[Student], bound: Bound, at_once: bool = False
) -> bool:
    """Brings the front's marks, its charts, the study's page and its figures up to date; returns whether it did.

    How the students stand is recorded where it is ``at_once``, as at the end of a study: it takes a moment. A store
    that refused a moment ago is left alone, unless it is to be ``at_once``.
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
    """Gives the runs of the front's members their weights and overlay sheets, where they lack them.

    A member whose weights another machine keeps is left out, with a warning.
    """
    pictures = Pictures(study, materials, home)
    name = study.name
    elsewhere = []
    for member in without_pictures(recorder, students, study=study, home=home):
        if not pictures.has_weights(member):
            elsewhere.append(str(member.number))
            continue
        content = pictures.sheet(member)
        try:
            write_whole(str(overlays_path(home, name, member.job)), content)
        except OSError as error:
            logger.warning("the pictures of trial %s were not written: %s; kdsearch sync does it", member.number, error)
        weights = weights_path(home, name, member.job).read_bytes()
        recorder.member(member.job, weights=weights, overlays=content)
    if elsewhere:
        logger.warning("no pictures of trials %s: their weights are on another machine", ", ".join(elsewhere))


def without_pictures(
    recorder: Recorder, students: Sequence[Student], *, study: StudyConfig, home: Path
) -> list[Student]:
    """The front's members whose run, or whose folder here, has no pictures yet."""
    return [
        member
        for member in front_of(students, study.search.objectives, study.search.limits)
        if recorder.lacks_pictures(member.job) or not overlays_path(home, study.name, member.job).is_file()
    ]
