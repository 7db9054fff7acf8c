"""Teachers that are not there yet, trained by workers as any other job is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Never

import torch

from kdsearch.distill.materials import Materials
from kdsearch.distill.result import Trained
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import store_teacher
from kdsearch.errors import TeacherError
from kdsearch.files.digests import digest
from kdsearch.files.whole import discard
from kdsearch.trials.record import EpochReport, describe_job, job_of_teacher
from kdsearch.workers.dispatcher import Dispatcher, Passed
from kdsearch.workers.jobs import Job

CHECKPOINT_EVERY_S = 30.0
CHECKPOINT_FORMAT = 1
"""Counts changes to what a teacher's checkpoint holds, so that an older one is not taken up."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A teacher that is to be trained."""

    recipe: TeacherRecipe
    materials: Materials
    """Its images and their split."""
    folder: Path
    checkpoint: str = ""
    """Where its state lies while it is trained: a path or a URL; beside the folder where it is empty."""


class TeacherSink:
    """Writes each teacher's folder; raises TeacherError for the first that cannot be trained."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._wanted = {job_of_teacher(one.folder.name): one for one in wanted}

    def epoch(self, job: Job, curve: tuple[EpochReport, ...]) -> str:  # noqa: ARG002 - the contract's names
        """Every teacher is trained to its end."""
        return ""

    def stopped(self, job: Job, reason: str, curve: tuple[EpochReport, ...]) -> Iterator[Never]:
        """Never asked for, since ``epoch`` stops nothing."""
        raise NotImplementedError

    def succeeded(self, job: Job, trained: Trained, curve: tuple[EpochReport, ...]) -> Iterator[Never]:
        """Writes the folder."""
        wanted = self._wanted[job.id]
        store_teacher(trained, recipe=wanted.recipe, curve=curve, folder=wanted.folder)
        discard(job.checkpoint)
        yield from ()

    def failed(self, job: Job, reason: str, curve: tuple[EpochReport, ...], *, traceback: str = "") -> Iterator[Never]:
        """Raises TeacherError, because its students have none."""
        if traceback:
            logger.error("the %s failed:\n%s", describe_job(job.id), traceback)
        epochs = f" after {len(curve)} epochs" if curve else ""
        raise TeacherError(f"the teacher could not be trained: {reason}{epochs}")

    def lost(self, job: Job, reasons: tuple[str, ...]) -> Iterator[Never]:  # noqa: ARG002 - the contract's names
        """The dispatcher tries again; a next driver counts from 0."""
        yield from ()


def train_teachers(wanted: Sequence[Wanted], jobs: Dispatcher, *, home: Path, threads: int | None) -> Iterator[Passed]:
    """Trains them, as many at once as there are workers, each from its checkpoint; returns when all folders are there.

    ``threads`` are torch's for each, None for a worker's usual ones. Raises TeacherError where one cannot be trained,
    SearchError where its images cannot be opened.
    """
    sink = TeacherSink(wanted)
    jobs.waiting.extend(_job(one, home, threads) for one in wanted)
    while jobs.open:
        while jobs.waiting and jobs.room():
            jobs.start_next()
        yield from jobs.poll(sink)


def _job(wanted: Wanted, home: Path, threads: int | None) -> Job:
    name = wanted.folder.name
    return Job(
        id=job_of_teacher(name),
        recipe=wanted.recipe,
        materials=wanted.materials.place(home),
        checkpoint=wanted.checkpoint or str(wanted.folder.with_name(f".{name}.checkpoint").absolute()),
        subject=digest(CHECKPOINT_FORMAT, torch.__version__, name),
        checkpoint_every_s=CHECKPOINT_EVERY_S,
        threads=threads,
    )
