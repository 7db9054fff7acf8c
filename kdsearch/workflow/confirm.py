"""Confirms a study's likely front, and finds what an earlier confirmation said."""

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
    """What would be sealed now; nothing is trained or stored. Raises KdsearchError."""
    from kdsearch.confirm.preparation import prepare

    return prepare(study, home, open_store(study, home, create=False))


def confirm(
    study: StudyConfig, *, home: Path, environment: Mapping[str, str] = os.environ, anew: bool = False
) -> Generator[DriverEvent | ConfirmEvent, None, Confirmation]:
    """Carries the study's plan out, or resumes it, and records it in MLflow; returns the answers.

    ``anew`` seals another plan beside the old. Closing the generator, or an interrupt, stops it so that the next call
    resumes. Raises KdsearchError where it cannot start or continue; that MLflow does not take what was found is logged.
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
    """Scores the locked test images once, by the trial's recipe trained on all others; as ``confirm`` does.

    Raises KdsearchError where they are open already, unless ``again``.
    """
    from kdsearch.confirm import driver

    tracking = choose_tracking(study.tracking_uri, environment)
    tracking.require(database=True)
    found = yield from driver.score_locked(study, home=home, trial=trial, again=again)
    _try_to_record(study, home, tracking=tracking, kind="test")
    return found


def _try_to_record(study: StudyConfig, home: Path, *, tracking: Tracking, kind: Kind) -> None:
    """As ``record``; the storage holds what was found, so that MLflow can be brought level later."""
    try:
        record(study, home, tracking=tracking, kind=kind)
    except KdsearchError as error:
        logger.warning("%s; kdsearch sync makes up for it", error)


def plan_test(study: StudyConfig, home: Path, *, trial: int) -> Prepared:
    """What ``score_locked`` would seal now; nothing is opened. Raises KdsearchError."""
    from kdsearch.confirm.preparation import prepare_test

    return prepare_test(study, home, open_store(study, home, create=False), trial=trial)


def confirmation(study: StudyConfig, home: Path, *, kind: Kind = "confirm") -> Confirmation | None:
    """The answers of the study's last plan that is carried out; None where none is.

    Of a test, ``number`` says how often the locked images were opened until now. Raises SearchError for an unknown
    study.
    """
    store = _last_complete(study, home, kind)
    if store is None:
        return None
    found = answers_of(store)
    return dataclasses.replace(found, number=openings(study, home)) if kind == "test" else found


def sealed_before(study: StudyConfig, home: Path, *, kind: Kind) -> str:
    """The plans that are stored already, in a sentence without its period; empty if there are none."""
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
    """How often the locked test images were opened, also where that was broken off."""
    return len(_stores(study, home, "test"))


def record(study: StudyConfig, home: Path, *, tracking: Tracking, kind: Kind = "confirm") -> None:
    """Brings MLflow level with the study's last plan of that kind, where one is carried out.

    Raises KdsearchError where MLflow does not take it.
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
    """The study's plans that are carried out, the last one last. Raises SearchError for an unknown study."""
    return [store for store in _stores(study, home, kind) if store.complete()]


def _last_complete(study: StudyConfig, home: Path, kind: Kind) -> ConfirmStore | None:
    return next(reversed(finished_plans(study, home, kind=kind)), None)


def _stores(study: StudyConfig, home: Path, kind: Kind) -> list[ConfirmStore]:
    search = read_store(study, home)
    url = storage_url(home, study.name, study.storage)
    return sealed_plans(url, study.name, study_id=search.id, kind=kind)


def refitted(known: Candidates, *, trial: int | None) -> Candidates:
    """The tested student alone: of that trial, or of the last test; its scores are those of the locked images.

    Of its seeds it is the one that the test's plan names. Raises KdsearchError where there was no such test, or what
    it made is not there.
    """
    store = _test_of(known, trial=trial)
    repeat = _shipped(store)
    result = store.results()[repeat.arm.id, repeat.repetition, repeat.fold]
    if result.scores is None:
        raise KdsearchError(
            f"study {known.study.name}: trial {repeat.arm.trial} could not be trained for its test with the seed that "
            f"ships: {result.reason}"
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
            f"study {study}: --refit ships the student that a test trained, and no test is finished; kdsearch test "
            f"--trial {words} makes one, and opens the locked images"
        )
    raise KdsearchError(
        f"study {study}: trial {trial} was not tested, so that there are no weights of it to refit with; tested: trial "
        f"{', '.join(str(number) for number in dict.fromkeys(tested))}"
    )


def _shipped(store: ConfirmStore) -> Repeat:
    """The training whose weights the plan names as those to ship."""
    plan = store.plan
    member = plan.members[0]
    return next(
        repeat
        for repeat in plan.repeats()
        if repeat.arm == member and plan.seeds[repeat.repetition][repeat.fold] == plan.ships
    )


def _materials(known: Candidates, store: ConfirmStore, repeat: Repeat, *, seed: int) -> Materials:
    """What it was made from and scored by."""
    study = known.study
    splits = all_but_locked(
        known.materials.dataset, known.materials.splits, train_on_negatives=study.data.train_on_negatives
    )
    wanted = teacher_of_fold(study, known.materials, splits, seed=seed)
    teacher = open_teacher(wanted.recipe, wanted.folder(known.home))
    if splits.fingerprint != store.plan.partitions[repeat.repetition][repeat.fold] or teacher is None:
        raise KdsearchError(
            f"study {study.name}: the images or the teacher of trial {repeat.arm.trial}'s test are not those under "
            f"{known.home}; were the study file or KDSEARCH_HOME others then?"
        )
    return dataclasses.replace(wanted.images, trained_teacher=teacher)
