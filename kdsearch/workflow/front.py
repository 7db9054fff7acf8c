"""The students of a study that no other student beats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.config.study import StudyConfig
from kdsearch.front.members import front_of
from kdsearch.search.store import open_store
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


def front(study: StudyConfig, home: Path) -> Front:
    """The study's front; raises SearchError where the study was never run."""
    store = open_store(study, home, create=False)
    repeats: tuple[Repeat, ...] = ()
    students = students_of(store.records())
    if study.repeats > 1:
        from kdsearch.report.repeats import averaged
        from kdsearch.search.repeats import gather_repeats  # brings torch, with which test images are scored

        repeats = gather_repeats(study, home)
        students = averaged(repeats)
    members = front_of(students, study.search.objectives, study.search.limits)
    return Front(students=students, members=members, repeats=repeats, teacher=store.teacher())
