"""Confirms a study's likely front, and finds what an earlier confirmation said."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.config.study import StudyConfig
from kdsearch.confirm.answers import answers_of
from kdsearch.confirm.store import ConfirmStore, open_confirmation
from kdsearch.files.home import storage_url
from kdsearch.search.store import open_store
from kdsearch.statistics.confirmation import Confirmation, Kind
from kdsearch.tracking.location import Tracking, choose_tracking

if TYPE_CHECKING:
    from kdsearch.confirm.events import ConfirmEvent
    from kdsearch.confirm.preparation import Prepared
    from kdsearch.search.events import DriverEvent


def plan_confirmation(study: StudyConfig, home: Path) -> Prepared:
    """What would be sealed now; nothing is trained or stored. Raises KdsearchError."""
    from kdsearch.confirm.preparation import prepare

    return prepare(study, home, open_store(study, home, create=False))


def confirm(
    study: StudyConfig, *, home: Path, environment: Mapping[str, str] = os.environ, anew: bool = False
) -> Generator[DriverEvent | ConfirmEvent, None, Confirmation]:
    """Carries the study's plan out, or resumes it, and records it in MLflow; returns the answers.

    ``anew`` seals another plan beside the old. Closing the generator, or an interrupt, stops it so that the next call
    resumes. Raises KdsearchError where it cannot start or continue; where MLflow does not take what was found, it says
    so when all is stored.
    """
    from kdsearch.confirm.driver import confirm_study

    tracking = choose_tracking(study.tracking_uri, environment)
    tracking.require()
    found = yield from confirm_study(study, home=home, anew=anew)
    record(study, home, tracking=tracking)
    return found


def score_locked(
    study: StudyConfig,
    *,
    trial: int,
    home: Path,
    environment: Mapping[str, str] = os.environ,
    again: bool = False,
) -> Generator[DriverEvent | ConfirmEvent, None, Confirmation]:
    """Scores the locked test images once, by the trial's recipe trained on all others; as ``confirm`` does.

    Raises KdsearchError where they are open already, unless ``again``.
    """
    from kdsearch.confirm import driver

    tracking = choose_tracking(study.tracking_uri, environment)
    tracking.require()
    found = yield from driver.score_locked(study, home=home, trial=trial, again=again)
    record(study, home, tracking=tracking, kind="test")
    return found


def plan_test(study: StudyConfig, home: Path, *, trial: int) -> Prepared:
    """What ``score_locked`` would seal now; nothing is opened. Raises KdsearchError."""
    from kdsearch.confirm.preparation import prepare_test

    return prepare_test(study, home, open_store(study, home, create=False), trial=trial)


def confirmation(study: StudyConfig, home: Path, *, kind: Kind = "confirm") -> Confirmation | None:
    """The answers of the study's last plan; None where none is carried out. Raises SearchError for an unknown study."""
    store = _store(study, home, kind)
    return answers_of(store) if store is not None and store.complete() else None


def record(study: StudyConfig, home: Path, *, tracking: Tracking, kind: Kind = "confirm") -> None:
    """Brings MLflow level with the study's last plan of that kind, where one is carried out.

    Raises KdsearchError where MLflow does not take it.
    """
    from kdsearch.report.confirmation import confirmation_markdown
    from kdsearch.tracking.confirmation import RecordedRepeat, record_confirmation

    store = _store(study, home, kind)
    if store is None or not store.complete():
        return
    found = answers_of(store)
    shown = {arm.id for arm in (*found.arms, found.teacher)}
    repeats = [
        RecordedRepeat(arm=one.arm, repetition=one.repetition, fold=one.fold, scores=one.scores)
        for one in store.results().values()
        if one.scores is not None and one.arm in shown
    ]
    study_id = open_store(study, home, create=False).id
    note = confirmation_markdown(found)
    record_confirmation(found, repeats, note=note, tracking=tracking, study_id=study_id)


def _store(study: StudyConfig, home: Path, kind: Kind) -> ConfirmStore | None:
    search = open_store(study, home, create=False)
    url = storage_url(home, study.name, study.storage)
    return open_confirmation(url, study.name, study_id=search.id, kind=kind)
