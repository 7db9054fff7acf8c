"""Fronts, tables and reports of a study.

A front is shown within a second, so pandas, torch and plotly are imported only by the functions that need them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.config.load import dump_study
from kdsearch.config.study import StudyConfig, replicates_of
from kdsearch.errors import KdsearchError, NotRunYetError
from kdsearch.front.dominance import front_of
from kdsearch.search.store import read_store
from kdsearch.statistics.selection import NOTHING_KNOWN, Standings, standing_metrics, standings_of
from kdsearch.trials.record import Student, TrialRecord, students_of
from kdsearch.trials.scores import Scores
from kdsearch.version import installed_packages

if TYPE_CHECKING:
    import pandas as pd

    from kdsearch.report.repeats import Repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A study's students and the best of them."""

    students: tuple[Student, ...]
    """The finished ones; for a study with repeats, averages over repeats."""
    members: tuple[Student, ...]
    """The front, smallest first."""
    repeats: tuple[Repeat, ...]
    """Empty if the study has no repeats."""
    teacher: Scores | None
    """None before it is trained."""
    groups: tuple[int, ...] | None
    """Of the validation images, in the order of the split; None for repeats, or if they were not stored."""
    standings: Standings
    """How stable the students are under resampling; empty if unknown, as for averages over repeats."""


def front(study: StudyConfig, home: Path) -> Front:
    """The study's front; for a study with repeats, that of averages. Raises SearchError if it was never run."""
    if study.replicates == 1:
        return front_of_one(study, home)
    from kdsearch.report.repeats import averaged
    from kdsearch.search.pictures import gather_repeats

    teacher = read_store(study, home).teacher()
    repeats = gather_repeats(study, home)
    students = averaged(repeats) or front_of_one(study, home).students  # weights may be on another machine
    members = front_of(students, study.search.objectives, study.search.limits)
    return Front(
        students=students, members=members, repeats=repeats, teacher=teacher, groups=None, standings=NOTHING_KNOWN
    )


def front_of_one(study: StudyConfig, home: Path) -> Front:
    """The front of this study only, even if it is one of several repeats."""
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
    """The study's front; raises KdsearchError, which names the command ``resume``, if no student is finished."""
    found = front(study, home)
    if not found.students:
        raise KdsearchError(f"study {study.name} has no finished student yet; train some with {resume}")
    return found


def students_table(students: Iterable[Student], standings: Standings = NOTHING_KNOWN) -> pd.DataFrame:
    """One row per student, by trial: every score, its stability if known, then every setting."""
    return _by_trial(
        {
            "trial": student.number,
            **student.scores.metrics(),
            **student.cost_with_donors(),
            **standing_metrics(standings, student.number),
            **student.recipe.settings(),
        }
        for student in students
    )


def trials_table(records: Iterable[TrialRecord]) -> pd.DataFrame:
    """One row per trial, whatever its outcome: outcome, reason, times, scores if it finished, settings."""
    return _by_trial(
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
    )


def _by_trial(rows: Iterable[dict[str, object]]) -> pd.DataFrame:
    import pandas as pd

    listed = list(rows)
    return pd.DataFrame(listed).set_index("trial") if listed else pd.DataFrame(index=pd.Index([], name="trial"))


def all_trials_table(study: StudyConfig, home: Path) -> pd.DataFrame:
    """As ``trials_table``; for a study with repeats, by repeat (from 1) and trial.

    Repeats that were never run are left out. Raises NotRunYetError if none was run.
    """
    import pandas as pd

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


def report(study: StudyConfig, home: Path, *, resume: str) -> str:
    """The study's report as self-contained HTML.

    Raises KdsearchError if no student is finished, or the study's images or teacher are missing.
    """
    from kdsearch.campaign.preparation import open_materials
    from kdsearch.report.page import ReportData, report_page
    from kdsearch.report.repeats import variants_of
    from kdsearch.search.pictures import Pictures
    from kdsearch.workflow.confirm import confirmation

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
