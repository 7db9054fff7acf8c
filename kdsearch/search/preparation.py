"""Gets data, teacher and workers ready for a search."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from kdsearch.config.search import SearchConfig
from kdsearch.config.study import StudyConfig
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import Dataset, DataSummary, Splits
from kdsearch.data.splits import split
from kdsearch.distill.arrays import training_data
from kdsearch.distill.device import choose_device
from kdsearch.distill.materials import Materials
from kdsearch.distill.teacher import open_teacher, teacher_folder, train_teacher
from kdsearch.errors import KdsearchError, SearchError
from kdsearch.files.folders import lock_of
from kdsearch.files.home import checkpoint_folder
from kdsearch.files.whole import names_in, remove
from kdsearch.measure.latency import cores
from kdsearch.search.events import DriverEvent, MaterialsReady, Resumed, TeacherProgress, Waiting
from kdsearch.trials.record import TrialRecord
from kdsearch.workers.inline import InlineExecutor
from kdsearch.workers.jobs import Executor, Resources
from kdsearch.workers.processes import ProcessExecutor
from kdsearch.workers.ray_cluster import RayExecutor

LOCK_POLL_S = 0.5


def prepare(study: StudyConfig, home: Path) -> Generator[DriverEvent, None, MaterialsReady]:
    """Reads the images, trains the teacher where it is not cached, and says when both are there.

    Raises KdsearchError where one of them cannot be had.
    """
    device = choose_device(study.device)
    dataset, splits = _images(study, home)
    _require_empty_images(study.search, [bool(dataset.has_lesion[position]) for position in splits.validation])
    folder = teacher_folder(study, splits.fingerprint, home)
    lock = lock_of(folder)
    yield from _acquired(lock)
    threads = torch.get_num_threads()
    try:
        teacher = open_teacher(study.teacher, folder, size=study.data.size)
        if teacher is None:
            torch.set_num_threads(cores())
            training = train_teacher(study, training_data(dataset, splits, device), folder)
            while teacher is None:
                try:
                    yield TeacherProgress(report=next(training))
                except StopIteration as stop:
                    teacher = stop.value
    finally:
        torch.set_num_threads(threads)
        lock.release()
    materials = Materials(dataset=dataset, splits=splits, teacher=teacher)
    ready = MaterialsReady(materials=materials, device=device.type)
    yield ready
    return ready


def open_materials(study: StudyConfig, home: Path, *, data: DataSummary | None) -> Materials:
    """The study's images, split and cached teacher; ``data`` is what its trials were made from.

    Raises KdsearchError where one of them is not there, or the images are others.
    """
    dataset, splits = _images(study, home)
    if data is not None and data.split != splits.fingerprint:
        raise KdsearchError(
            f"study {study.name}: the images or their split are not those its trials were made from ({data.split}, now "
            f"{splits.fingerprint}); restore them, or name their folder with --data"
        )
    teacher = open_teacher(study.teacher, teacher_folder(study, splits.fingerprint, home), size=study.data.size)
    if teacher is None:
        raise KdsearchError(
            f"study {study.name}: its teacher is not under {home / 'teachers'}; were the images, the teacher's "
            "settings or KDSEARCH_HOME others then? kdsearch run trains it"
        )
    return Materials(dataset=dataset, splits=splits, teacher=teacher)


def _images(study: StudyConfig, home: Path) -> tuple[Dataset, Splits]:
    dataset = load_dataset(study.data, home)
    return dataset, split(dataset, study.data.split, train_without_lesion=study.data.train_without_lesion)


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
