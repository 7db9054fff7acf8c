"""Confirms and tests a study's students, and reads the results of earlier confirmations and tests."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.config.study import StudyConfig
from kdsearch.confirm.answers import answers_of
from kdsearch.confirm.plan import Repeat
from kdsearch.confirm.preparation import teacher_of_fold
from kdsearch.confirm.store import ConfirmStore, sealed_plans
from kdsearch.data.splits import all_but_locked
from kdsearch.distill.materials import Materials
from kdsearch.distill.teacher_folder import open_teacher
from kdsearch.errors import KdsearchError
from kdsearch.files.home import storage_url
from kdsearch.search.pictures import Pictures
from kdsearch.search.store import open_store, read_store
from kdsearch.statistics.confirmation import Confirmation, Kind
from kdsearch.tracking.location import Tracking, choose_tracking
from kdsearch.trials.record import Student
from kdsearch.workflow.choosing import Candidates

if TYPE_CHECKING:
    from kdsearch.campaign.events import DriverEvent
    from kdsearch.confirm.driver import ConfirmEvent
    from kdsearch.confirm.preparation import Prepared

logger = logging.getLogger(__name__)


def plan_confirmation(study: StudyConfig, home: Path) -> Prepared:
    """Returns the plan that ``confirm`` would store, without training or storing anything. Raises KdsearchError."""
    from kdsearch.confirm.preparation import prepare

    return prepare(study, home, open_store(study, home, create=False))


def confirm(
    study: StudyConfig, *, home: Path, environment: Mapping[str, str] = os.environ, anew: bool = False
) -> Generator[DriverEvent | ConfirmEvent, None, Confirmation]:
    """Carries out or resumes the study's plan, writes the results to MLflow and returns them.

    ``anew`` stores another plan in addition to the existing ones. If the generator is closed or interrupted, the next
    call resumes. Raises KdsearchError if it cannot start or continue; if MLflow rejects the results, logs a warning.
    """
    from kdsearch.confirm.driver import confirm_study

    tracking = choose_tracking(study.tracking_uri, environment)
    tracking.require(database=True)
    found = yield from confirm_study(study, home=home, anew=anew)
    _try_to_record(study, home, tracking=tracking, kind="confirm")
    return found


def score_locked(
    study: StudyConfig,
    *,
    trial: int,
    home: Path,
    environment: Mapping[str, str] = os.environ,
    again: bool = False,
) -> Generator[DriverEvent | ConfirmEvent, None, Confirmation]:
    """Trains the trial's recipe on all other images and scores it on the locked test images; resumes like ``confirm``.

    Raises KdsearchError if the test images were used before, except with ``again``.
    """
    from kdsearch.confirm import driver

    tracking = choose_tracking(study.tracking_uri, environment)
    tracking.require(database=True)
    found = yield from driver.score_locked(study, home=home, trial=trial, again=again)
    _try_to_record(study, home, tracking=tracking, kind="test")
    return found


def _try_to_record(study: StudyConfig, home: Path, *, tracking: Tracking, kind: Kind) -> None:
    """Like ``record``, but only logs errors: the Optuna database has the results, so they can be uploaded later."""
    try:
        record(study, home, tracking=tracking, kind=kind)
    except KdsearchError as error:
        logger.warning("%s; kdsearch sync uploads what is missing", error)


def plan_test(study: StudyConfig, home: Path, *, trial: int) -> Prepared:
    """Returns the plan that ``score_locked`` would store, without using the test images. Raises KdsearchError."""
    from kdsearch.confirm.preparation import prepare_test

    return prepare_test(study, home, open_store(study, home, create=False), trial=trial)


def confirmation(study: StudyConfig, home: Path, *, kind: Kind = "confirm") -> Confirmation | None:
    """Returns the results of the study's last finished plan; None if there is none.

    For a test, ``number`` is how often the locked test images have been used so far. Raises SearchError if the study
    was never run.
    """
    store = _last_complete(study, home, kind)
    if store is None:
        return None
    found = answers_of(store)
    return dataclasses.replace(found, number=openings(study, home)) if kind == "test" else found


def sealed_before(study: StudyConfig, home: Path, *, kind: Kind) -> str:
    """Describes the plans that are stored already, in a sentence without its period; empty if there are none."""
    stores = _stores(study, home, kind)
    if not stores:
        return ""
    last, times = stores[-1], "once" if len(stores) == 1 else f"{len(stores)} times"
    state = "finished" if last.complete() else "unfinished"
    if kind == "test":
        return (
            f"The test set was used {times}, last on {last.sealed} for trial {last.plan.members[0].trial} ({state}); "
            "the same command resumes or shows that, and --again uses the test set once more (reports show how often)"
        )
    return (
        f"A plan was stored {times}, last on {last.sealed}: plan {last.plan.digest}, {state}; without --dry-run it is "
        "resumed or shown, and --new-plan stores the above as another plan"
    )


def openings(study: StudyConfig, home: Path) -> int:
    """Returns how often the locked test images were used, including interrupted tests."""
    return len(_stores(study, home, "test"))


def record(study: StudyConfig, home: Path, *, tracking: Tracking, kind: Kind = "confirm") -> None:
    """Writes the study's last finished plan of that kind to MLflow, if there is one.

    Raises KdsearchError if MLflow cannot be reached or rejects it.
    """
    from kdsearch.report.confirmation import confirmation_markdown
    from kdsearch.tracking.confirmation import RecordedRepeat, record_confirmation

    store = _last_complete(study, home, kind)
    if store is None:
        return
    found = answers_of(store)
    shown = {arm.id for arm in (*found.arms, found.teacher)}
    repeats = [
        RecordedRepeat(arm=one.arm, repetition=one.repetition, fold=one.fold, scores=one.scores)
        for one in store.results().values()
        if one.scores is not None and one.arm in shown
    ]
    study_id = read_store(study, home).id
    note = confirmation_markdown(found)
    record_confirmation(found, repeats, note=note, tracking=tracking, study_id=study_id)


def finished_plans(study: StudyConfig, home: Path, *, kind: Kind) -> list[ConfirmStore]:
    """Returns the study's finished plans, oldest first. Raises SearchError if the study was never run."""
    return [store for store in _stores(study, home, kind) if store.complete()]


def _last_complete(study: StudyConfig, home: Path, kind: Kind) -> ConfirmStore | None:
    return next(reversed(finished_plans(study, home, kind=kind)), None)


def _stores(study: StudyConfig, home: Path, kind: Kind) -> list[ConfirmStore]:
    search = read_store(study, home)
    url = storage_url(home, study.name, study.storage)
    return sealed_plans(url, study.name, study_id=search.id, kind=kind)


def refitted(known: Candidates, *, trial: int | None) -> Candidates:
    """Returns only the student that a test trained, with its scores on the locked test images.

    It is the student of ``trial`` or of the last test, trained with the seed that the test's plan names. Raises
    KdsearchError if there was no such test or its files are missing.
    """
    store = _test_of(known, trial=trial)
    repeat = _shipped(store)
    result = store.results()[repeat.arm.id, repeat.repetition, repeat.fold]
    if result.scores is None:
        raise KdsearchError(
            f"study {known.study.name}: the test of trial {repeat.arm.trial} could not train the student that --refit "
            f"exports: {result.reason}"
        )
    seed = store.plan.seeds[repeat.repetition][repeat.fold]
    student = Student(
        number=repeat.arm.trial,
        job=store.plan.job(repeat),
        recipe=repeat.arm.recipe.model_copy(update={"seed": seed}),
        scores=result.scores,
    )
    materials = _materials(known, store, repeat, seed=seed)
    return dataclasses.replace(
        known,
        students=(student,),
        scored_on="test",
        materials=materials,
        pictures=Pictures(known.study, materials, known.home),
        standings={},
        tested=dataclasses.replace(answers_of(store), number=known.test_openings),
    )


def _test_of(known: Candidates, *, trial: int | None) -> ConfirmStore:
    """The last finished test, of that trial if one is named."""
    study = known.study.name
    tests = finished_plans(known.study, known.home, kind="test")
    tested = [store.plan.members[0].trial for store in tests]
    wanted = [store for store, number in zip(tests, tested, strict=True) if trial in (None, number)]
    if wanted:
        return wanted[-1]
    if not tests:
        words = "N" if trial is None else str(trial)
        raise KdsearchError(
            f"study {study}: --refit exports the student that a test trained, but no test is finished; run kdsearch "
            f"test --trial {words} first, which uses the locked test images"
        )
    raise KdsearchError(
        f"study {study}: --refit exports the student that a test trained, but trial {trial} was not tested; tested "
        f"trials: {', '.join(str(number) for number in dict.fromkeys(tested))}"
    )


def _shipped(store: ConfirmStore) -> Repeat:
    """The training whose weights the plan selects for export."""
    plan = store.plan
    member = plan.members[0]
    return next(
        repeat
        for repeat in plan.repeats()
        if repeat.arm == member and plan.seeds[repeat.repetition][repeat.fold] == plan.ships
    )


def _materials(known: Candidates, store: ConfirmStore, repeat: Repeat, *, seed: int) -> Materials:
    """The images and the teacher that the training used."""
    study = known.study
    splits = all_but_locked(
        known.materials.dataset, known.materials.splits, train_on_negatives=study.data.train_on_negatives
    )
    wanted = teacher_of_fold(study, known.materials, splits, seed=seed)
    teacher = open_teacher(wanted.recipe, wanted.folder(known.home))
    if splits.fingerprint != store.plan.partitions[repeat.repetition][repeat.fold] or teacher is None:
        raise KdsearchError(
            f"study {study.name}: the images or the teacher under {known.home} are not those of the test of trial "
            f"{repeat.arm.trial}; has the study file or KDSEARCH_HOME changed since?"
        )
    return dataclasses.replace(wanted.images, trained_teacher=teacher)
