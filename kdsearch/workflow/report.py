"""A study as one HTML page."""

from __future__ import annotations

from pathlib import Path

from kdsearch.config.load import dump_study
from kdsearch.config.study import StudyConfig
from kdsearch.errors import KdsearchError
from kdsearch.report.page import ReportData, report_page
from kdsearch.report.repeats import variants_of
from kdsearch.search.pictures import Pictures
from kdsearch.search.preparation import open_materials
from kdsearch.search.store import read_store
from kdsearch.version import installed_packages
from kdsearch.workflow.confirm import confirmation
from kdsearch.workflow.front import Front, front


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
