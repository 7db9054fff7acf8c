"""Gets images, workers and a teacher ready for a search."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from kdsearch.config.search import SearchConfig
from kdsearch.config.study import StudyConfig
from kdsearch.config.teacher import PredictionsTeacher
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import DataSummary
from kdsearch.data.splits import split
from kdsearch.data.unlabelled import load_unlabelled
from kdsearch.distill.arrays import choose_device
from kdsearch.distill.materials import Materials
from kdsearch.distill.result import Kept
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import open_teacher, teacher_folder
from kdsearch.errors import KdsearchError, SearchError
from kdsearch.files.digests import digest
from kdsearch.files.home import checkpoint_folder
from kdsearch.files.whole import lock_of, names_in, remove
from kdsearch.measure.latency import cores
from kdsearch.search.events import DriverEvent, Resumed, Waiting
from kdsearch.trials.record import TrialRecord, job_of_teacher
from kdsearch.workers.dispatcher import Dispatcher
from kdsearch.workers.inline import InlineExecutor
from kdsearch.workers.jobs import Executor, Resources
from kdsearch.workers.processes import ProcessExecutor
from kdsearch.workers.ray_cluster import RayExecutor
from kdsearch.workers.teachers import LackingTeacher, store_taken, train_teachers

LOCK_POLL_S = 0.5


def read_images(study: StudyConfig, home: Path) -> Materials:
    """The study's images and their split; raises KdsearchError where they cannot be had, or lack what it asks for."""
    dataset = load_dataset(study.data, home)
    splits = split(dataset, study.data.split, train_without_lesion=study.data.train_without_lesion)
    _require_empty_images(study.search, [bool(dataset.has_lesion[position]) for position in splits.validation])
    unlabelled = load_unlabelled(study.data, home, dataset, splits)
    return Materials(dataset=dataset, splits=splits, unlabelled=unlabelled)


def read_same_images(study: StudyConfig, home: Path, *, data: DataSummary | None) -> Materials:
    """The images and split that its trials were made from, as ``data`` says; raises KdsearchError for others."""
    images = read_images(study, home)
    if data is not None and data.split != images.splits.fingerprint:
        raise KdsearchError(
            f"study {study.name}: the images or their split are not those its trials were made from ({data.split}, now "
            f"{images.splits.fingerprint}); restore them, or name their folder with --data"
        )
    unlabelled = None if images.unlabelled is None else images.unlabelled.fingerprint
    if data is not None and data.unlabelled_fingerprint != unlabelled:
        raise KdsearchError(
            f"study {study.name}: data.unlabelled: the images are not those its trials learnt from; restore them, or "
            "name their folder with --data NAME=FOLDER"
        )
    return images


def add_teacher(
    study: StudyConfig, images: Materials, jobs: Dispatcher, *, home: Path, study_id: str
) -> Generator[DriverEvent, None, Materials]:
    """The images with their teacher, which workers train where it is not cached.

    Raises KdsearchError where it cannot be trained.
    """
    wanted = WantedTeacher(recipe=TeacherRecipe.of(study), images=images)
    # students wait for it, so that all cores are idle; one thread gives the same on any number of them
    threads: Literal["all"] | int = 1 if study.search.deterministic else "all"
    (found,) = yield from add_teachers(study, [wanted], jobs, home=home, study_id=study_id, threads=threads)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTeacher:
    """A teacher that images are to have."""

    recipe: TeacherRecipe
    images: Materials
    kept: Kept = "best"
    """Which epoch's weights are the teacher's."""

    def folder(self, home: Path) -> Path:
        """Where it lies."""
        return teacher_folder(self.recipe, _made_from(self.recipe, self.images), home, kept=self.kept)


def _made_from(recipe: TeacherRecipe, images: Materials) -> str:
    """Stands for the images that a teacher is made from; predictions are kept of unlabelled ones too."""
    if isinstance(recipe.config, PredictionsTeacher) and images.unlabelled is not None:
        return digest(images.splits.fingerprint, images.unlabelled.fingerprint)
    return images.splits.fingerprint


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

    Raises KdsearchError where one cannot be trained.
    """
    with contextlib.ExitStack() as locks:
        for one in wanted:
            lock = lock_of(one.folder(home))
            yield from _acquired(lock)
            locks.callback(lock.release)
        taken = study.teacher.file is not None
        lacking = [
            LackingTeacher(
                recipe=one.recipe,
                materials=one.images if taken else dataclasses.replace(one.images, unlabelled=None),
                folder=one.folder(home),
                checkpoint=_checkpoint_of(one.folder(home), study, home, study_id=study_id),
                kept=one.kept,
            )
            for one in wanted
            if open_teacher(one.recipe, one.folder(home)) is None
        ]
        if taken:
            for one_lacking in lacking:
                store_taken(one_lacking, choose_device(study.device))
        else:
            yield from train_teachers(lacking, jobs, home=home, threads=threads)
    return [_with_teacher(one, home) for one in wanted]


def _checkpoint_of(folder: Path, study: StudyConfig, home: Path, *, study_id: str) -> str:
    """Where the study file says; empty for a place beside the folder."""
    if study.search.checkpoints is None:
        return ""
    place = checkpoint_folder(home, study.name, study.search.checkpoints, study_id=study_id)
    return f"{place}/{job_of_teacher(folder.name)}.checkpoint"


def _with_teacher(wanted: WantedTeacher, home: Path) -> Materials:
    teacher = open_teacher(wanted.recipe, wanted.folder(home))
    assert teacher is not None, "its folder was written"
    return dataclasses.replace(wanted.images, trained_teacher=teacher)


def open_materials(study: StudyConfig, home: Path, *, data: DataSummary | None) -> Materials:
    """The study's images, split and cached teacher; ``data`` is what its trials were made from.

    Raises KdsearchError where one of them is not there, or the images are others.
    """
    images = read_same_images(study, home, data=data)
    recipe = TeacherRecipe.of(study)
    teacher = open_teacher(recipe, teacher_folder(recipe, _made_from(recipe, images), home))
    if teacher is None:
        raise KdsearchError(
            f"study {study.name}: its teacher is not under {home / 'teachers'}; were the images, the teacher's "
            "settings or KDSEARCH_HOME others then? kdsearch run trains it"
        )
    return dataclasses.replace(images, trained_teacher=teacher)


def _require_empty_images(search: SearchConfig, lesions: list[bool]) -> None:
    """Raises SearchError where ``empty_share`` would be of no images."""
    if all(lesions) and ("empty_share" in search.objectives or search.limits.empty_share is not None):
        raise SearchError(
            "search: empty_share is of validation images without a lesion, and there is none; remove it from "
            "objectives and limits, or add such images to data.sources"
        )


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


def clear_checkpoints(study: StudyConfig, home: Path, records: Iterable[TrialRecord], *, study_id: str) -> None:
    """Removes the states of ended trials that a killed driver or worker left behind.

    Raises SearchError where the place for checkpoints cannot be used.
    """
    folder = checkpoint_folder(home, study.name, study.search.checkpoints, study_id=study_id)
    ended = {record.number for record in records if record.outcome != "running"}
    try:
        for name in names_in(folder):
            number = name.partition(".")[0]
            if number.isdigit() and int(number) in ended:
                remove(f"{folder}/{number}.checkpoint")
    except (ImportError, ValueError, OSError) as error:
        raise SearchError(
            f"search.checkpoints: {folder} cannot be used: {error}; name a folder, or a URL whose fsspec library is "
            "installed, such as s3fs for s3://"
        ) from error


def start_executor(study: StudyConfig, *, device: str) -> Executor:
    """The study's executor; workers have one torch thread each when there are as many as cores.

    Also when the study is deterministic, because sums depend on how many threads share them.
    """
    search = study.search
    if search.executor == "ray":
        threads = 1 if search.deterministic else max(1, int(search.ray.cpus_per_trial))
        resources = Resources(device="cuda" if search.ray.gpus_per_trial else "cpu", threads=threads)
        return RayExecutor(search.ray, resources, workers=search.workers)
    inline = search.executor == "inline"
    workers = 1 if inline else search.workers or (1 if device != "cpu" else cores())
    resources = Resources(device=device, threads=1 if search.deterministic else max(1, cores() // workers))
    return InlineExecutor(resources) if inline else ProcessExecutor(resources, workers=workers)
