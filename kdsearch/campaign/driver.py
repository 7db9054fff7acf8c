"""The driver. The only component that writes to Optuna and MLflow; gives jobs to workers and reports events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from kdsearch.campaign.events import DATABASE_AWAY, JobStarted, Resumed, Waiting
from kdsearch.campaign.lease import Lease
from kdsearch.campaign.storage import STORAGE_ERRORS, is_transient
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
"""Increases when a student's checkpoint or the order of training steps changes; older checkpoints are not resumed."""
WORKERS_ON_A_GPU = 4
"""Default with CUDA; more workers are no faster (docs/results/speed.md)."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
GIVES_UP_AFTER_S = 12 * 3600.0
"""One night, because the person who can free a disk or start a server may be asleep."""

T = TypeVar("T")
E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """The state of one driver while it trains networks."""

    study: StudyConfig
    home: Path
    study_id: str
    """Distinguishes the study from another one with the same name."""
    lease: Lease
    jobs: Dispatcher

    def checkpoint_of(self, job_id: str) -> str:
        """The path or URL of a job's checkpoint."""
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
        """Creates the job that trains a student; ``made_from`` identifies the images and the teacher."""
        return Job(
            id=job_id,
            recipe=from_anywhere(recipe, getattr(self.study.student, "weights", "")),
            materials=materials.place(self.home),
            checkpoint=self.checkpoint_of(job_id),
            subject=digest(CHECKPOINT_FORMAT, torch.__version__, *made_from, dump_for_digest(recipe)),
            checkpoint_every_s=self.study.search.checkpoint_every_s,
            cost=cost_of(recipe.student, self.study.data.task),
            threads=threads,
            kept=kept,
            donor=donor,
            export=export,
        )

    def write(
        self,
        write: Callable[[], T],
        *,
        what: str = DATABASE_AWAY,
        gives_up_after_s: float = GIVES_UP_AFTER_S,
    ) -> Generator[Waiting | Resumed, None, T]:
        """Calls ``write`` until it succeeds, while workers continue; ``what`` says in ``Waiting`` what failed.

        Raises SearchError if another driver took the study over, if waiting cannot help, or after ``gives_up_after_s``.
        """
        pause, began, waited = FIRST_PAUSE_S, time.monotonic(), False
        while True:
            try:
                self.lease.check()
                written = write()
            except (*STORAGE_ERRORS, OSError) as error:
                gone = time.monotonic() - began
                if gone > gives_up_after_s or not is_transient(error, self._storage):
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
            help_ = "waiting cannot fix this"
        else:
            help_ = f"waiting {waited_s / 3600:.1f} hours did not fix this"
        return SearchError(
            f"study {self.study.name} stops: {_first_line(error)}; {help_}. Finished results are kept; fix the cause "
            "and run the same command to resume"
        )


class Source(Results[E_co], Protocol[E_co]):
    """Supplies the jobs of a campaign and stores their results."""

    @property
    def is_done(self) -> bool:
        """Whether all jobs were started."""
        ...

    def next_job(self) -> Generator[E_co, None, Job | None]:
        """The next job; None if none can start until a running job ends."""
        ...


def train_all(campaign: Campaign, source: Source[E]) -> Iterator[E | JobStarted | Passed]:
    """Trains all jobs of the source, one per worker at a time.

    Does not wait at the end for a worker that was told to stop.
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
    """Starts a campaign's workers, and ends them when the context exits.

    ``lost`` lists why each job lost workers under earlier drivers. Raises SearchError if workers cannot be started.
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
    """Starts the study's executor and splits the cores between its workers.

    Workers of deterministic studies have one torch thread each, because sums depend on the number of threads.
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
