"""The driver: the only writer to Optuna and MLflow. It hands jobs to workers and reports what happens as events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from kdsearch.campaign.events import JobStarted, Resumed, Waiting
from kdsearch.campaign.lease import Lease
from kdsearch.campaign.storage import STORAGE_ERRORS, heals
from kdsearch.config.networks import StudentSpec
from kdsearch.config.study import StudyConfig
from kdsearch.distill.batches import choose_device
from kdsearch.distill.materials import Materials
from kdsearch.distill.result import Kept
from kdsearch.distill.student import Donor
from kdsearch.errors import SearchError, first_line
from kdsearch.files.digests import digest
from kdsearch.files.home import checkpoint_folder, storage_url
from kdsearch.measure.latency import cores
from kdsearch.models.costs import cost_of
from kdsearch.trials.recipe import Recipe, dump_for_digest, from_anywhere
from kdsearch.workers.dispatcher import Dispatcher, Passed, Results, Watchdog
from kdsearch.workers.inline import InlineExecutor
from kdsearch.workers.jobs import Executor, Job, Resources
from kdsearch.workers.processes import ProcessExecutor
from kdsearch.workers.ray_cluster import RayExecutor

CHECKPOINT_FORMAT = 6
"""Counts changes to what a student's checkpoint holds and to the order of a training: older ones are not resumed."""
WORKERS_ON_A_GPU = 4
"""With CUDA, if a study names no number; more gained nothing (docs/results/speed.md)."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
GIVES_UP_AFTER_S = 12 * 3600.0
"""A night: the person who frees a disk or starts a server may be asleep."""

T = TypeVar("T")
E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Everything one driver holds while it trains networks."""

    study: StudyConfig
    home: Path
    study_id: str
    """Tells the study from another of the same name."""
    lease: Lease
    jobs: Dispatcher

    def checkpoint_of(self, job_id: str) -> str:
        """Where a job's state is kept while it runs: a path or a URL."""
        configured = self.study.search.checkpoint_url
        folder = checkpoint_folder(self.home, self.study.name, configured, study_id=self.study_id)
        return f"{folder}/{job_id}.checkpoint"

    def student_job(
        self,
        job_id: str,
        recipe: Recipe,
        materials: Materials,
        *,
        made_from: tuple[str, ...],
        threads: int | None = None,
        kept: Kept = "best",
        donor: Donor | None = None,
        export: Callable[[StudentSpec, bytes], bytes] | None = None,
    ) -> Job:
        """The job that trains a student; ``made_from`` identifies the images and the teacher."""
        return Job(
            id=job_id,
            recipe=from_anywhere(recipe, getattr(self.study.student, "weights", "")),
            materials=materials.place(self.home),
            checkpoint=self.checkpoint_of(job_id),
            subject=digest(CHECKPOINT_FORMAT, torch.__version__, *made_from, dump_for_digest(recipe)),
            checkpoint_every_s=self.study.search.checkpoint_every_s,
            cost=cost_of(recipe.student, size=self.study.data.size),
            threads=threads,
            kept=kept,
            donor=donor,
            export=export,
        )

    def write(
        self,
        write: Callable[[], T],
        *,
        what: str = "the storage does not take the study",
        gives_up_after_s: float = GIVES_UP_AFTER_S,
    ) -> Generator[Waiting | Resumed, None, T]:
        """Writes, and tries again until the write succeeds; workers continue meanwhile. ``what`` a wait is for.

        Raises SearchError if another driver took the study over, or if waiting would not help or did not for so long.
        """
        pause, began, waited = FIRST_PAUSE_S, time.monotonic(), False
        while True:
            try:
                self.lease.check()
                written = write()
            except (*STORAGE_ERRORS, OSError) as error:
                gone = time.monotonic() - began
                if gone > gives_up_after_s or not heals(error, self._storage):
                    raise self._stopped(error, waited_s=gone if waited else None) from error
                waited = True
                yield Waiting(reason=_first_line(error), what=what)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            if waited:
                self.jobs.watchdog.reset(now=time.monotonic())
                yield Resumed()
            return written

    @property
    def _storage(self) -> str:
        return storage_url(self.home, self.study.name, self.study.storage)

    def _stopped(self, error: Exception, *, waited_s: float | None) -> SearchError:
        if waited_s is None:
            help_ = "waiting would not fix that"
        else:
            help_ = f"waiting {waited_s / 3600:.1f} hours did not fix that"
        return SearchError(
            f"study {self.study.name} stops: {_first_line(error)}; {help_}. What is finished is kept, and the same "
            "command resumes when its cause is fixed"
        )


class Source(Results[E_co], Protocol[E_co]):
    """What a campaign trains, and what happens to the results."""

    @property
    def is_done(self) -> bool:
        """Whether there is no job left to start."""
        ...

    def next_job(self) -> Generator[E_co, None, Job | None]:
        """The next job; None if there is none to start before something that runs has ended."""
        ...


def train_all(campaign: Campaign, source: Source[E]) -> Iterator[E | JobStarted | Passed]:
    """Trains all that the source has, as many at once as there are workers.

    A worker that was told to stop and has not yet is not waited for at the end.
    """
    jobs = campaign.jobs
    while True:
        while jobs.room() and (job := jobs.next_requeued() or (yield from source.next_job())) is not None:
            jobs.start(job)
            yield JobStarted(job=job.id, recipe=job.recipe, cost=job.cost)
        if not jobs.open and source.is_done:
            return
        yield from jobs.poll(source)


@contextlib.contextmanager
def campaign(
    study: StudyConfig,
    home: Path,
    *,
    study_id: str,
    lease: Lease,
    lost: Mapping[str, tuple[str, ...]] | None = None,
) -> Iterator[Campaign]:
    """A campaign whose workers are up; they end with the context.

    ``lost`` are the workers that each job lost under former drivers. Raises SearchError if workers cannot be started.
    """
    executor = start_executor(study, device=choose_device(study.device).type)
    try:
        search = study.search
        jobs = Dispatcher(
            executor,
            study=study.name,
            watchdog=Watchdog(timeout=search.lost_after_epochs),
            retries=search.retries,
            lost=lost,
        )
        yield Campaign(study=study, home=home, study_id=study_id, lease=lease, jobs=jobs)
    finally:
        executor.close()


def start_executor(study: StudyConfig, *, device: str) -> Executor:
    """The study's executor; workers have one torch thread each if there are as many as cores.

    Deterministic studies have one thread per worker too, because sums depend on how many threads share them.
    """
    search = study.search
    if search.executor == "ray":
        threads = 1 if search.deterministic else max(1, int(search.ray.cpus_per_trial))
        resources = Resources(device="cuda" if search.ray.gpus_per_trial else "cpu", threads=threads)
        return RayExecutor(search.ray, resources, workers=search.workers)
    workers = workers_of(study, device=device)
    resources = Resources(device=device, threads=1 if search.deterministic else max(1, cores() // workers))
    return InlineExecutor(resources) if search.executor == "inline" else ProcessExecutor(resources, workers=workers)


def workers_of(study: StudyConfig, *, device: str) -> int:
    """How many jobs run at once on this machine."""
    if study.search.executor == "inline":
        return 1
    return study.search.workers or {"cpu": cores(), "cuda": min(cores(), WORKERS_ON_A_GPU)}.get(device, 1)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return first_line(getattr(cause, "orig", None) or cause)
