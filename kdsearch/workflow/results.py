"""Fronts, tables and reports of a study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kdsearch.campaign.preparation import open_materials
from kdsearch.config.load import dump_study
from kdsearch.config.study import StudyConfig, replicates_of
from kdsearch.errors import KdsearchError, NotRunYetError
from kdsearch.front.dominance import front_of
from kdsearch.report.page import ReportData, report_page
from kdsearch.report.repeats import variants_of
from kdsearch.search.pictures import Pictures
from kdsearch.search.store import read_store
from kdsearch.statistics.selection import NOTHING_KNOWN, Standings, standing_metrics, standings_of
from kdsearch.trials.record import Student, TrialRecord, students_of
from kdsearch.trials.scores import Scores
from kdsearch.version import installed_packages
from kdsearch.workflow.confirm import confirmation

if TYPE_CHECKING:
    from kdsearch.report.repeats import Repeat


def students_table(students: Iterable[Student], standings: Standings = NOTHING_KNOWN) -> pd.DataFrame:
    """A row a student, by trial: every score, how it stands where that is known, then every setting of its recipe."""
    rows = [
        {
            "trial": student.number,
            **student.scores.metrics(),
            **student.cost_with_donors(),
            **standing_metrics(standings, student.number),
            **student.recipe.settings(),
        }
        for student in students
    ]
    return pd.DataFrame(rows).set_index("trial") if rows else pd.DataFrame(index=pd.Index([], name="trial"))


def trials_table(records: Iterable[TrialRecord]) -> pd.DataFrame:
    """A row a trial, whatever became of it: outcome, reason, when, scores where it finished, settings."""
    rows = [
        {
            "trial": record.number,
            "outcome": record.outcome,
            "reason": record.reason,
            "started": record.started,
            "ended": record.ended,
            "epochs_trained": len(record.curve),
            **(record.scores.metrics() if record.scores else {}),
            **(record.recipe.settings() if record.recipe else {}),
        }
        for record in records
    ]
    return pd.DataFrame(rows).set_index("trial") if rows else pd.DataFrame(index=pd.Index([], name="trial"))


def all_trials_table(study: StudyConfig, home: Path) -> pd.DataFrame:
    """As ``trials_table``; if the study has repeats, by repeat, counted from 1, and trial.

    Repeats that were never run are left out. Raises NotRunYetError if none was.
    """
    if study.replicates == 1:
        return trials_table(read_store(study, home).records())
    tables = {}
    for place, one in enumerate(replicates_of(study), start=1):
        try:
            tables[place] = trials_table(read_store(one, home).records())
        except NotRunYetError:
            if place == 1:
                raise
    return pd.concat(tables, names=["repeat"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A study's students and the best of them."""

    students: tuple[Student, ...]
    """The finished ones; of a study with repeats, their averages."""
    members: tuple[Student, ...]
    """The front, smallest first."""
    repeats: tuple[Repeat, ...]
    """Of a study that has some; else empty."""
    teacher: Scores | None
    """None before it was trained."""
    groups: tuple[int, ...] | None
    """Of the validation images, in the order of the split; None if they were not stored, or for repeats."""
    standings: Standings
    """How the students stand had other images been drawn; empty where that cannot be told, as of repeats' averages."""


def front(study: StudyConfig, home: Path) -> Front:
    """The study's front, of its repeats' averages where it has some; raises SearchError where it was never run."""
    if study.replicates == 1:
        return front_of_one(study, home)
    from kdsearch.report.repeats import averaged
    from kdsearch.search.pictures import gather_repeats  # brings torch, with which test images are scored

    teacher = read_store(study, home).teacher()
    repeats = gather_repeats(study, home)
    students = averaged(repeats) or front_of_one(study, home).students  # such as weights on another machine
    members = front_of(students, study.search.objectives, study.search.limits)
    return Front(
        students=students, members=members, repeats=repeats, teacher=teacher, groups=None, standings=NOTHING_KNOWN
    )


def front_of_one(study: StudyConfig, home: Path) -> Front:
    """The front of the study by itself, whether or not it is one of several repeats."""
    store, search = read_store(study, home), study.search
    students, data = students_of(store.records()), store.data()
    groups = data.validation_groups if data is not None else None
    return Front(
        students=students,
        members=front_of(students, search.objectives, search.limits),
        repeats=(),
        teacher=store.teacher(),
        groups=groups,
        standings=standings_of(students, search.objectives, groups),
    )


def require_front(study: StudyConfig, home: Path, *, resume: str) -> Front:
    """The study's front; ``resume`` is how a person would train more.

    Raises KdsearchError where the study has no finished student.
    """
    found = front(study, home)
    if not found.students:
        raise KdsearchError(f"study {study.name} has no finished student yet; train some with {resume}")
    return found


def report(study: StudyConfig, home: Path, *, resume: str) -> str:
    """The page: front, curves, what mattered, how the search went, pictures; it opens with no network.

    Raises KdsearchError where the study has no finished student, or its images or teacher are not there.
    """
    found, store = require_front(study, home, resume=resume), read_store(study, home)
    pictures = Pictures(study, open_materials(study, home, data=store.data(), teacher_id=store.teacher_id), home)
    return report_page(
        ReportData(
            study=study,
            records=tuple(record for record in store.records() if record.outcome != "running"),
            front=found.members,
            standings=found.standings,
            confirmed=confirmation(study, home),
            tested=confirmation(study, home, kind="test"),
            teacher=found.teacher,
            data=store.data(),
            importances=store.importances(),
            overlays={
                member.number: pictures.sheet(member) for member in found.members if pictures.has_weights(member)
            },
            study_text=dump_study(study),
            environment=installed_packages(),
            variants=variants_of(found.repeats) if found.repeats else (),
        )
    )
