"""Teachers that are not there yet, trained by workers as any other job is."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Literal, Never, TypeAlias, TypeVar

import torch

from kdsearch.config.networks import AnyTeacher, TeacherConfig
from kdsearch.distill.materials import Materials
from kdsearch.distill.result import Kept, Trained
from kdsearch.distill.taken_teacher import take_teacher
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import store_teacher
from kdsearch.errors import TeacherError
from kdsearch.files.digests import digest
from kdsearch.files.home import expanded
from kdsearch.files.whole import discard
from kdsearch.trials.record import EpochReport, describe_job, job_of_teacher
from kdsearch.workers.dispatcher import Dispatcher, Passed
from kdsearch.workers.jobs import Job

CHECKPOINT_EVERY_S = 30.0
FILE = "file:"
"""Before the path of a file in ``teacher.weights``."""
CHECKPOINT_FORMAT = 2
"""Counts changes to what a teacher's checkpoint holds, so that an older one is not resumed."""

logger = logging.getLogger(__name__)

E = TypeVar("E")


@dataclass(frozen=True, slots=True, kw_only=True)
class LackingTeacher:
    """A teacher that is to be trained."""

    recipe: TeacherRecipe
    materials: Materials
    """Its images and their split."""
    folder: Path
    checkpoint: str = ""
    """Where its state lies while it is trained: a path or a URL; beside the folder where it is empty."""
    kept: Kept = "best"
    """Which epoch's weights are the teacher's."""


Keep: TypeAlias = Callable[[Callable[[], None]], Iterator[E]]
"""Carries a write out; what it yields meanwhile, as while a disk is full, is passed on."""


def at_once(write: Callable[[], None]) -> Iterator[Never]:
    """Carries the write out; raises OSError where it is not taken."""
    write()
    yield from ()


class TeacherSink(Generic[E]):
    """Writes each teacher's folder; raises TeacherError for the first that cannot be trained."""

    def __init__(self, lacking: Sequence[LackingTeacher], keep: Keep[E]) -> None:
        self._keep = keep
        self._lacking = {job_of_teacher(one.folder.name): one for one in lacking}

    def epoch(self, job: Job, curve: tuple[EpochReport, ...], *, replayed: bool) -> str:  # noqa: ARG002 - the contract's names
        """Every teacher is trained to its end."""
        return ""

    def stopped(self, job: Job, reason: str, curve: tuple[EpochReport, ...]) -> Iterator[Never]:  # noqa: ARG002 - likewise
        """Never asked for, since ``epoch`` stops nothing."""
        raise AssertionError("no teacher is stopped")

    def succeeded(self, job: Job, trained: Trained, curve: tuple[EpochReport, ...]) -> Iterator[E]:
        """Writes the folder; until it is written, the checkpoint holds the teacher."""
        lacking = self._lacking[job.id]
        store = partial(store_teacher, trained, recipe=lacking.recipe, curve=curve, folder=lacking.folder)
        yield from self._keep(store)
        discard(job.checkpoint)

    def failed(self, job: Job, reason: str, curve: tuple[EpochReport, ...], *, traceback: str = "") -> Iterator[Never]:
        """Raises TeacherError, because its students have none."""
        name = describe_job(job.id, tuple(self._lacking))
        if traceback:
            logger.error("the %s failed:\n%s", name, traceback)
        after = f" after {len(curve)} epoch{'s' * (len(curve) > 1)}" if curve else ""
        raise TeacherError(f"the {name} could not be trained{after}: {reason}")

    def lost(self, job: Job, reasons: tuple[str, ...]) -> Iterator[Never]:  # noqa: ARG002 - the contract's names
        """The dispatcher tries again; a next driver counts from 0."""
        yield from ()


def train_teachers(
    lacking: Sequence[LackingTeacher],
    jobs: Dispatcher,
    *,
    home: Path,
    threads: int | Literal["all"] | None,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    keep: Keep[E] = at_once,
) -> Iterator[E | Passed]:
    """Trains them, as many at once as there are workers, each from its checkpoint; returns when all folders are there.

    ``threads`` are torch's for each, None for a worker's usual ones; ``keep`` carries writes out. Raises TeacherError
    where one cannot be trained, SearchError where its images cannot be opened.
    """
    sink = TeacherSink(lacking, keep)
    jobs.waiting.extend(_job(one, home=home, threads=threads, every_s=checkpoint_every_s) for one in lacking)
    while jobs.open:
        while jobs.waiting and jobs.room():
            jobs.start_next()
        yield from jobs.poll(sink)


def store_taken(lacking: LackingTeacher, device: torch.device) -> Callable[[], None]:
    """What makes the folder of a teacher that is there: nothing is trained, and a worker elsewhere may lack its file.

    Raises KdsearchError where the file does not fit.
    """
    taken = take_teacher(lacking.recipe, lacking.materials, device)
    return partial(store_teacher, taken, recipe=lacking.recipe, curve=(), folder=lacking.folder)


def _job(lacking: LackingTeacher, *, home: Path, threads: int | Literal["all"] | None, every_s: float) -> Job:
    name = lacking.folder.name
    return Job(
        id=job_of_teacher(name),
        recipe=dataclasses.replace(lacking.recipe, config=_from_anywhere(lacking.recipe.config)),
        materials=lacking.materials.place(home),
        checkpoint=lacking.checkpoint or str(lacking.folder.with_name(f".{name}.checkpoint").absolute()),
        subject=digest(CHECKPOINT_FORMAT, torch.__version__, name),
        checkpoint_every_s=every_s,
        threads=threads,
        kept=lacking.kept,
    )


def _from_anywhere(config: AnyTeacher) -> AnyTeacher:
    """A file of weights by its whole path: a worker may run in another folder."""
    if not isinstance(config, TeacherConfig) or not config.weights.startswith(FILE):
        return config
    path = expanded(config.weights.removeprefix(FILE), field="teacher.weights").absolute()
    return config.model_copy(update={"weights": f"{FILE}{path}"})
