"""Prepares the images, folds and plan of a confirmation or a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kdsearch.campaign.driver import workers_of
from kdsearch.campaign.preparation import read_same_images, require_same_teacher
from kdsearch.campaign.wanted_teachers import WantedTeacher
from kdsearch.config.networks import TeacherConfig
from kdsearch.config.study import StudyConfig
from kdsearch.confirm.plan import Plan, make_plan, make_test_plan
from kdsearch.confirm.store import ScoredImages, describe_images
from kdsearch.data.dataset import Splits
from kdsearch.data.splits import all_but_locked, development_images, folds, folds_by_source
from kdsearch.distill.batches import choose_device
from kdsearch.distill.materials import Materials
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.errors import SearchError, nearest
from kdsearch.files.digests import seed_of
from kdsearch.search.store import StudyStore
from kdsearch.statistics.power import Layout
from kdsearch.statistics.selection import standings_of
from kdsearch.trials.record import Student, students_of

UNFINISHED = "the search is not finished, so better students may still turn up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything that a confirmation needs before training starts."""

    plan: Plan
    """The plan as it would be sealed now."""
    images: Materials
    """The search's images, without a teacher."""
    folds: tuple[tuple[Splits, ...], ...]
    """By repetition."""
    described: ScoredImages
    seconds: float
    """An estimate of the total time, based on the search's training times."""

    @property
    def lesions(self) -> int:
        """Number of scored images with a lesion."""
        return int(self._with_lesion.sum())

    @property
    def layout(self) -> Layout:
        """The groups and folds of the images with a lesion, which determine the plan's power."""
        here = self._with_lesion
        _, groups = np.unique(np.asarray(self.described.groups)[here], return_inverse=True)
        return Layout(
            groups=groups,
            folds=np.asarray(self.described.folds)[:, here],
            test_to_train=self.described.test_to_train,
            pairs=len(self.plan.twins),
        )

    @property
    def _with_lesion(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.described.lesion_fraction) > 0


def prepare(study: StudyConfig, home: Path, store: StudyStore) -> Prepared:
    """Reads the images, splits them into folds and makes the plan; raises KdsearchError if any of this fails."""
    if study.replicates > 1:
        raise SearchError(
            f"study {study.name}: repeats and confirm cannot be combined, because repeats already average over splits"
        )
    images = read_same_images(study, home, data=store.data())
    require_same_teacher(study, images, home, teacher_id=store.teacher_id)
    dealt = _folds(study, images)
    students, data = students_of(store.records()), store.data()
    groups = data.validation_groups if data is not None else None
    plan = make_plan(
        study,
        students,
        standings_of(students, study.search.objectives, groups),
        partitions=[[splits.fingerprint for splits in repetition] for repetition in dealt],
        warnings=[*_warnings(study), *([] if store.complete() else [UNFINISHED])],
    )
    return Prepared(
        plan=plan,
        images=images,
        folds=dealt,
        described=describe_images(images.dataset, development_images(images.dataset, images.splits), dealt),
        seconds=_seconds(study, plan, students, store, images.splits, dealt),
    )


def prepare_test(study: StudyConfig, home: Path, store: StudyStore, *, trial: int) -> Prepared:
    """Reads the images and plans one student's test on the locked ones; raises KdsearchError if any of this fails."""
    images = read_same_images(study, home, data=store.data())
    require_same_teacher(study, images, home, teacher_id=store.teacher_id)
    students = students_of(store.records())
    student = next((student for student in students if student.number == trial), None)
    if student is None:
        hint = nearest(str(trial), (str(student.number) for student in students))
        raise SearchError(f"study {study.name}: trial {trial}: no finished student has this number{hint}")
    whole = all_but_locked(images.dataset, images.splits, train_on_negatives=study.data.train_on_negatives)
    plan = make_test_plan(study, student, partition=whole.fingerprint, warnings=_warnings(study))
    dealt = ((whole,),) * len(plan.partitions)
    return Prepared(
        plan=plan,
        images=images,
        folds=dealt,
        described=describe_images(images.dataset, whole.validation, dealt),
        seconds=_seconds(study, plan, students, store, images.splits, dealt),
    )


def teacher_of_fold(study: StudyConfig, images: Materials, splits: Splits, *, seed: int) -> WantedTeacher:
    """The teacher of one fold, trained on the fold's training images for all epochs and with the last weights."""
    config = study.teacher
    if isinstance(config, TeacherConfig) and config.file is None:
        config = config.model_copy(update={"training": config.training.model_copy(update={"patience": None})})
    return WantedTeacher(
        recipe=TeacherRecipe(config=config, task=study.data.task, seed=seed),
        images=images.with_splits(splits),
        kept="last",
    )


def _folds(study: StudyConfig, images: Materials) -> tuple[tuple[Splits, ...], ...]:
    settings, negatives = study.confirm, study.data.train_on_negatives
    dataset, splits = images.dataset, images.splits
    if settings.leave_one_source_out:
        return (folds_by_source(dataset, splits, train_on_negatives=negatives),) * settings.repetitions
    seeds = [seed_of("folds", settings.seed, repetition) for repetition in range(settings.repetitions)]
    return tuple(
        folds(dataset, splits, count=settings.folds, seed=seed, train_on_negatives=negatives) for seed in seeds
    )


def _warnings(study: StudyConfig) -> list[str]:
    found = []
    if study.teacher.file is not None:
        found.append(
            f"the teacher is {study.teacher.file} in every fold; if it was trained on the images scored here, its Dice "
            "is too high and its students' Dice may be too"
        )
    if study.report_test_scores:
        found.append(
            "the study has already scored its test images (report_test_scores), so no image is held out any more"
        )
    return found


def _seconds(
    study: StudyConfig,
    plan: Plan,
    students: Sequence[Student],
    store: StudyStore,
    splits: Splits,
    dealt: tuple[tuple[Splits, ...], ...],
) -> float:
    """Estimates the total time from the search's training times and the number of images, divided by the workers."""
    took = {}
    for student in students:
        epochs, from_scratch = student.recipe.training.epochs, student.recipe.from_scratch.training.epochs
        took[student.number] = student.scores.train_seconds * from_scratch / epochs
    teacher = store.teacher()
    each = sum(took[arm.trial] for arm in plan.arms)
    images = sum(len(fold.train) for repetition in dealt for fold in repetition) / len(splits.train)
    workers = workers_of(study, device=choose_device(study.device).type)
    return images * (each / workers + (teacher.train_seconds if teacher is not None else 0.0))
