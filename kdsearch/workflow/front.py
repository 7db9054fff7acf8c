"""The students of a study that no other student beats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.config.study import StudyConfig
from kdsearch.front.members import front_of
from kdsearch.search.store import read_store
from kdsearch.statistics.standings import NOTHING_KNOWN, Standings, standings_of
from kdsearch.trials.record import Student, students_of
from kdsearch.trials.scores import Scores

if TYPE_CHECKING:
    from kdsearch.report.repeats import Repeat


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
    standings: Standings
    """How the students stand had other images been drawn; empty where that cannot be told, as of repeats' averages."""


def front(study: StudyConfig, home: Path) -> Front:
    """The study's front, of its repeats' averages where it has some; raises SearchError where it was never run."""
    if study.repeats == 1:
        return front_of_one(study, home)
    from kdsearch.report.repeats import averaged
    from kdsearch.search.repeats import gather_repeats  # brings torch, with which test images are scored

    teacher = read_store(study, home).teacher()
    repeats = gather_repeats(study, home)
    students = averaged(repeats) or front_of_one(study, home).students  # such as weights on another machine
    members = front_of(students, study.search.objectives, study.search.limits)
    return Front(students=students, members=members, repeats=repeats, teacher=teacher, standings=NOTHING_KNOWN)


def front_of_one(study: StudyConfig, home: Path) -> Front:
    """The front of the study by itself, whether or not it is one of several repeats."""
    store, search = read_store(study, home), study.search
    students, data = students_of(store.records()), store.data()
    return Front(
        students=students,
        members=front_of(students, search.objectives, search.limits),
        repeats=(),
        teacher=store.teacher(),
        standings=standings_of(students, search.objectives, data.validation_groups if data is not None else None),
    )
