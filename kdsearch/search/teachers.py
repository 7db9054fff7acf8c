"""Gets images their teachers: cached ones, and those that workers train."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from kdsearch.config.study import StudyConfig
from kdsearch.distill.batches import choose_device
from kdsearch.distill.materials import Materials
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.files.home import checkpoint_folder
from kdsearch.files.whole import lock_of
from kdsearch.search.events import DriverEvent, Resumed, TrainingTeachers, Waiting
from kdsearch.search.session import until_written
from kdsearch.search.teacher_answers import knows_all, store_known, store_mean
from kdsearch.search.wanted_teacher import WantedTeacher, at_own_size
from kdsearch.trials.record import job_of_teacher
from kdsearch.workers.dispatcher import Dispatcher
from kdsearch.workers.teachers import LackingTeacher, store_taken, train_teachers

LOCK_POLL_S = 0.5


def add_teacher(
    study: StudyConfig, images: Materials, jobs: Dispatcher, *, home: Path, study_id: str
) -> Generator[DriverEvent, None, Materials]:
    """The images with their teacher, which workers train where it is not cached.

    Raises KdsearchError where it cannot be trained.
    """
    wanted = WantedTeacher(recipe=TeacherRecipe.of(study), images=images)
    alone = not wanted.members() and not study.search.deterministic
    # students wait for it, so that all cores are idle; one thread gives the same on any number of them
    threads: Literal["all"] | int = "all" if alone else 1
    (found,) = yield from add_teachers(study, [wanted], jobs, home=home, study_id=study_id, threads=threads)
    return found


def add_teachers(
    study: StudyConfig,
    wanted: Sequence[WantedTeacher],
    jobs: Dispatcher,
    *,
    home: Path,
    study_id: str,
    threads: Literal["all"] | int,
) -> Generator[DriverEvent, None, list[Materials]]:
    """Each one's images with their teacher; those not cached are trained, as many at once as there are workers.

    Writes wait for a disk that is full. Raises KdsearchError where one cannot be trained.
    """
    keep = partial(until_written, study=study, home=home, jobs=jobs, what="the disk does not take the teacher")
    with contextlib.ExitStack() as locks:
        for folder in sorted({each.folder(home) for one in wanted for each in (one, *one.members())}):
            lock = lock_of(folder)
            yield from _acquired(lock)
            locks.callback(lock.release)
        lacking = [one for one in wanted if one.cached(home) is None]
        single = [part for one in lacking for part in _untrained(one, home)]
        made = [_lacking(one, study, home, study_id=study_id) for one in single]
        if study.teacher.file is not None:
            for each in made:
                yield from keep(store_taken(each, choose_device(study.device)))
        elif made:
            yield TrainingTeachers(jobs=tuple(job_of_teacher(each.folder.name) for each in made))
            yield from train_teachers(made, jobs, home=home, threads=threads, keep=keep)
        for one in lacking:
            if members := one.members():
                yield from keep(store_mean(one, members, study, home))
        for one in wanted:
            if one.recipe.own_size != study.data.size and not knows_all(one, home):
                yield from keep(store_known(one, study, home))
    return [_with_teacher(one, home) for one in wanted]


def _untrained(one: WantedTeacher, home: Path) -> list[WantedTeacher]:
    """Of a teacher that is not cached, the networks that are still to be trained."""
    members = one.members()
    return [part for part in members if part.cached(home) is None] if members else [one]


def _lacking(one: WantedTeacher, study: StudyConfig, home: Path, *, study_id: str) -> LackingTeacher:
    folder = one.folder(home)
    images = one.images if study.teacher.file is not None else dataclasses.replace(one.images, unlabelled=None)
    return LackingTeacher(
        recipe=one.recipe,
        materials=at_own_size(images, one.recipe, study, home),
        folder=folder,
        checkpoint=_checkpoint_of(folder, study, home, study_id=study_id),
        kept=one.kept,
    )


def _checkpoint_of(folder: Path, study: StudyConfig, home: Path, *, study_id: str) -> str:
    """Where the study file says; empty for a place beside the folder."""
    if study.search.checkpoints is None:
        return ""
    place = checkpoint_folder(home, study.name, study.search.checkpoints, study_id=study_id)
    return f"{place}/{job_of_teacher(folder.name)}.checkpoint"


def _with_teacher(wanted: WantedTeacher, home: Path) -> Materials:
    teacher = wanted.cached(home)
    assert teacher is not None, "its folder was written"
    return dataclasses.replace(wanted.images, trained_teacher=teacher)


def _acquired(lock: FileLock) -> Iterator[Waiting | Resumed]:
    """Takes the lock, once another study that trains the same teacher has done with it."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield Waiting(reason="it takes it from there", what="another study trains this teacher")
        while not lock.is_locked:
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=LOCK_POLL_S)
        yield Resumed()
