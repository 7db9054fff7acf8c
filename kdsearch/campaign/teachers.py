"""Provides teachers for images: opens cached ones and lets workers train the others."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Never, TypeAlias

import torch
from filelock import FileLock, Timeout

from kdsearch.campaign.driver import Campaign, train_all
from kdsearch.campaign.events import JobStarted, Resumed, TrainingTeachers, Waiting
from kdsearch.campaign.wanted_teachers import (
    WantedTeacher,
    at_own_size,
    knows_all,
    store_known,
    store_mean,
    take_teacher,
)
from kdsearch.config.networks import AnyTeacher, TeacherConfig
from kdsearch.distill.batches import choose_device
from kdsearch.distill.materials import Materials
from kdsearch.distill.result import Kept, Trained
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import store_teacher
from kdsearch.errors import TeacherError
from kdsearch.files.atomic import discard, lock_of
from kdsearch.files.digests import digest
from kdsearch.files.home import expanded
from kdsearch.trials.recipe import FILE
from kdsearch.trials.record import EpochReport, describe_job, job_of_teacher
from kdsearch.workers.dispatcher import Passed
from kdsearch.workers.jobs import Job

CHECKPOINT_EVERY_S = 30.0
CHECKPOINT_FORMAT = 2
"""Increases when a teacher's checkpoint changes; older checkpoints are not resumed."""
LOCK_POLL_S = 0.5
FULL_DISK = "cannot write the teacher to disk"

TeacherEvent: TypeAlias = TrainingTeachers | JobStarted | Waiting | Resumed | Passed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LackingTeacher:
    """A teacher that is still to be trained."""

    recipe: TeacherRecipe
    materials: Materials
    """Its images and their split."""
    folder: Path
    checkpoint: str = ""
    """The path or URL of its checkpoint; empty puts it next to the folder."""
    kept: Kept = "best"
    """Which epoch's weights the teacher gets."""


class Teachers:
    """The source of teacher jobs; writes each teacher's folder when it is trained."""

    stopping = None
    losses = None

    def __init__(
        self,
        campaign: Campaign,
        lacking: Sequence[LackingTeacher],
        *,
        threads: int | Literal["all"] | None,
        checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    ) -> None:
        """``threads`` are torch threads per teacher; None uses the worker's default."""
        self._campaign = campaign
        self._lacking = {job_of_teacher(one.folder.name): one for one in lacking}
        self._left = deque(lacking)
        self._threads, self._every_s = threads, checkpoint_every_s

    @property
    def is_done(self) -> bool:
        return not self._left

    def next_job(self) -> Generator[Waiting | Resumed, None, Job | None]:
        yield from ()
        return self._job(self._left.popleft()) if self._left else None

    def succeeded(self, job: Job, trained: Trained, curve: tuple[EpochReport, ...]) -> Iterator[Waiting | Resumed]:
        """Writes the folder, then removes the checkpoint."""
        lacking = self._lacking[job.id]
        store = partial(store_teacher, trained, recipe=lacking.recipe, curve=curve, folder=lacking.folder)
        yield from self._campaign.write(store, what=FULL_DISK)
        discard(job.checkpoint)

    def failed(self, job: Job, reason: str, curve: tuple[EpochReport, ...], *, traceback: str = "") -> Iterator[Never]:
        """Raises TeacherError, because its students need it."""
        name = describe_job(job.id, tuple(self._lacking))
        if traceback:
            logger.error("the %s failed:\n%s", name, traceback)
        after = f" after {len(curve)} epoch{'s' * (len(curve) > 1)}" if curve else ""
        raise TeacherError(f"the {name} could not be trained{after}: {reason}")

    def _job(self, lacking: LackingTeacher) -> Job:
        name = lacking.folder.name
        return Job(
            id=job_of_teacher(name),
            recipe=dataclasses.replace(lacking.recipe, config=_from_anywhere(lacking.recipe.config)),
            materials=lacking.materials.place(self._campaign.home),
            checkpoint=lacking.checkpoint or str(lacking.folder.with_name(f".{name}.checkpoint").absolute()),
            subject=digest(CHECKPOINT_FORMAT, torch.__version__, name),
            checkpoint_every_s=self._every_s,
            threads=self._threads,
            kept=lacking.kept,
        )


def add_teacher(campaign: Campaign, images: Materials) -> Generator[TeacherEvent, None, Materials]:
    """Adds the study's teacher to its images; workers train it if it is not cached.

    Raises KdsearchError if it cannot be trained.
    """
    study = campaign.study
    wanted = WantedTeacher(recipe=TeacherRecipe.of(study), images=images)
    alone = not wanted.members() and not study.search.deterministic
    # students wait for it, so it may use all cores; one thread gives the same result on any number of cores
    threads: Literal["all"] | int = "all" if alone else 1
    (found,) = yield from add_teachers(campaign, [wanted], threads=threads)
    return found


def add_teachers(
    campaign: Campaign, wanted: Sequence[WantedTeacher], *, threads: Literal["all"] | int
) -> Generator[TeacherEvent, None, list[Materials]]:
    """Returns each one's images with their teacher; workers train those that are not cached in parallel.

    Waits if the disk is full. Raises KdsearchError if a teacher cannot be trained.
    """
    study, home = campaign.study, campaign.home
    keep = partial(campaign.write, what=FULL_DISK)
    with contextlib.ExitStack() as locks:
        for folder in sorted({each.folder(home) for one in wanted for each in (one, *one.members())}):
            lock = lock_of(folder)
            yield from _acquired(lock)
            locks.callback(lock.release)
        lacking = [one for one in wanted if one.cached(home) is None]
        made = [_lacking(campaign, part) for one in lacking for part in _untrained(one, home)]
        if study.teacher.file is not None:
            for each in made:
                yield from keep(_store_taken(each, choose_device(study.device)))
        elif made:
            yield TrainingTeachers(jobs=tuple(job_of_teacher(each.folder.name) for each in made))
            yield from train_all(campaign, Teachers(campaign, made, threads=threads))
        for one in lacking:
            if members := one.members():
                yield from keep(store_mean(one, members, study, home))
        for one in wanted:
            if one.recipe.own_task != study.data.task and not knows_all(one, home):
                yield from keep(store_known(one, study, home))
    return [_with_teacher(one, home) for one in wanted]


def _untrained(one: WantedTeacher, home: Path) -> list[WantedTeacher]:
    """The networks that are still to be trained for a teacher that is not cached."""
    members = one.members()
    return [part for part in members if part.cached(home) is None] if members else [one]


def _lacking(campaign: Campaign, one: WantedTeacher) -> LackingTeacher:
    study, home, folder = campaign.study, campaign.home, one.folder(campaign.home)
    images = one.images if study.teacher.file is not None else dataclasses.replace(one.images, unlabelled=None)
    # by default a teacher's checkpoint is next to its folder, where other studies find it too
    elsewhere = study.search.checkpoint_url is not None
    return LackingTeacher(
        recipe=one.recipe,
        materials=at_own_size(images, one.recipe, study, home),
        folder=folder,
        checkpoint=campaign.checkpoint_of(job_of_teacher(folder.name)) if elsewhere else "",
        kept=one.kept,
    )


def _store_taken(lacking: LackingTeacher, device: torch.device) -> Callable[[], None]:
    """Returns a function that writes the folder of a teacher that is already trained.

    The driver loads it, because workers on other machines may lack the file. Raises KdsearchError if it cannot be used.
    """
    taken = take_teacher(lacking.recipe, lacking.materials, device)
    return partial(store_teacher, taken, recipe=lacking.recipe, curve=(), folder=lacking.folder)


def _from_anywhere(config: AnyTeacher) -> AnyTeacher:
    """Makes the path of a weights file absolute, because workers may run in another folder."""
    if not isinstance(config, TeacherConfig) or not config.weights.startswith(FILE):
        return config
    path = expanded(config.weights.removeprefix(FILE), field="teacher.weights").absolute()
    return config.model_copy(update={"weights": f"{FILE}{path}"})


def _with_teacher(wanted: WantedTeacher, home: Path) -> Materials:
    teacher = wanted.cached(home)
    assert teacher is not None, "its folder was written"
    return dataclasses.replace(wanted.images, trained_teacher=teacher)


def _acquired(lock: FileLock) -> Iterator[Waiting | Resumed]:
    """Takes the lock, after waiting for any other study that trains the same teacher."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield Waiting(reason="this study will use it too", what="another study is training this teacher")
        while not lock.is_locked:
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=LOCK_POLL_S)
        yield Resumed()
