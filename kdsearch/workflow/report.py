"""A study as one HTML page."""

from __future__ import annotations

from pathlib import Path

from kdsearch.config.load import dump_study
from kdsearch.config.study import StudyConfig
from kdsearch.errors import KdsearchError
from kdsearch.front.members import front_of
from kdsearch.measure.environment import installed_packages
from kdsearch.report.page import ReportData, report_page
from kdsearch.report.repeats import Repeat, averaged, variants_of
from kdsearch.search.pictures import Pictures
from kdsearch.search.preparation import open_materials
from kdsearch.search.repeats import gather_repeats
from kdsearch.search.store import StudyStore, open_store
from kdsearch.trials.record import Student, students_of


def open_finished(study: StudyConfig, home: Path, *, resume: str) -> tuple[StudyStore, tuple[Student, ...]]:
    """The study and its finished students; ``resume`` is how a person would train some.

    Raises KdsearchError where there are none.
    """
    store = open_store(study, home, create=False)
    students = students_of(store.records())
    if not students:
        raise KdsearchError(f"study {study.name} has no finished student yet; train some with {resume}")
    return store, students


def shown_students(
    study: StudyConfig, home: Path, students: tuple[Student, ...]
) -> tuple[tuple[Repeat, ...], tuple[Student, ...]]:
    """The repeats of a repeated study and their averages; else none, and the students themselves."""
    repeats = gather_repeats(study, home) if study.repeats > 1 else ()
    return repeats, averaged(repeats) if repeats else students


def report(study: StudyConfig, home: Path, *, resume: str) -> str:
    """The page: front, curves, what mattered, how the search went, pictures; it opens with no network.

    Raises KdsearchError where the study has no finished student, or its images or teacher are not there.
    """
    store, students = open_finished(study, home, resume=resume)
    repeats, shown = shown_students(study, home, students)
    front = front_of(shown, study.search.objectives, study.search.limits)
    pictures = Pictures(study, open_materials(study, home, data=store.data()), home)
    return report_page(
        ReportData(
            study=study,
            records=tuple(record for record in store.records() if record.outcome != "running"),
            front=front,
            teacher=store.teacher(),
            data=store.data(),
            importances=store.importances(),
            overlays={member.number: pictures.sheet(member) for member in front if pictures.has_weights(member)},
            study_text=dump_study(study),
            environment=installed_packages(),
            variants=variants_of(repeats) if repeats else (),
        )
    )
