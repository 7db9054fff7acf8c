"""The student that the locked test trained on all other images, ready to be picked."""

from __future__ import annotations

import dataclasses

from kdsearch.confirm.answers import answers_of
from kdsearch.confirm.plan import Repeat
from kdsearch.confirm.preparation import teacher_of_fold
from kdsearch.confirm.store import ConfirmStore
from kdsearch.data.folds import all_but_locked
from kdsearch.distill.materials import Materials
from kdsearch.distill.teacher_folder import open_teacher
from kdsearch.errors import KdsearchError
from kdsearch.search.pictures import Pictures
from kdsearch.trials.record import Student
from kdsearch.workflow.choosing import Candidates
from kdsearch.workflow.confirm import finished_plans


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
        known.materials.dataset, known.materials.splits, train_without_lesion=study.data.train_without_lesion
    )
    wanted = teacher_of_fold(study, known.materials, splits, seed=seed)
    teacher = open_teacher(wanted.recipe, wanted.folder(known.home))
    if splits.fingerprint != store.plan.partitions[repeat.repetition][repeat.fold] or teacher is None:
        raise KdsearchError(
            f"study {study.name}: the images or the teacher of trial {repeat.arm.trial}'s test are not those under "
            f"{known.home}; were the study file or KDSEARCH_HOME others then?"
        )
    return dataclasses.replace(wanted.images, trained_teacher=teacher)
