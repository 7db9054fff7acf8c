"""Opens the images that a campaign trains and scores on, and the teacher of a finished study."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from pathlib import Path

from kdsearch.campaign.wanted_teachers import WantedTeacher
from kdsearch.config.study import StudyConfig
from kdsearch.data.cache import load_dataset, load_unlabelled, open_dataset
from kdsearch.data.dataset import DataSummary
from kdsearch.data.source import check_tables
from kdsearch.data.splits import split
from kdsearch.distill.materials import Materials
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import open_teacher, recipe_in
from kdsearch.errors import EncoderError, KdsearchError, SearchError, first_line
from kdsearch.files.atomic import names_in, remove
from kdsearch.files.digests import digest_file
from kdsearch.files.home import checkpoint_folder, expanded
from kdsearch.trials.recipe import FILE
from kdsearch.trials.record import TrialRecord

logger = logging.getLogger(__name__)


def read_images(study: StudyConfig, home: Path, *, stored: DataSummary | None = None) -> Materials:
    """Reads and splits the study's images; raises KdsearchError if they are unavailable or the study needs others.

    Pass ``stored``, which describes the images of its trials, to read their results; newer rules about files are then
    not applied.
    """
    if stored is None:
        check_tables(study.data)
    dataset = load_dataset(study.data, home, stored=None if stored is None else stored.fingerprint)
    splits = split(dataset, study.data.split, train_on_negatives=study.data.train_on_negatives)
    search, has_foreground = study.search, dataset.has_foreground[list(splits.validation)]
    if has_foreground.all() and ("specificity" in search.objectives or search.limits.min_specificity is not None):
        raise SearchError(
            "search: specificity needs negative validation images, but every one has a lesion; remove it from "
            "objectives and limits, or add negative images to data.sources"
        )
    unlabelled = load_unlabelled(study.data, home, dataset, splits)
    return Materials(dataset=dataset, splits=splits, unlabelled=unlabelled)


def require_same_teacher(study: StudyConfig, images: Materials, home: Path, *, teacher_id: str) -> None:
    """Raises KdsearchError if the teacher's file has changed since the study's trials were trained."""
    if study.teacher.file is None:
        return
    now = WantedTeacher(recipe=TeacherRecipe.of(study), images=images).folder(home).name
    if now != teacher_id:
        raise KdsearchError(
            f"study {study.name}: teacher: {study.teacher.file} has changed since its trials were trained (was "
            f"{teacher_id}, now {now}); restore it, or give the study another name"
        )


def student_weights(study: StudyConfig) -> str:
    """The digest of the file of weights that students start from; empty if they use none.

    Raises EncoderError if the file does not exist.
    """
    weights = str(getattr(study.student, "weights", ""))
    if not weights.startswith(FILE):
        return ""
    path = expanded(weights.removeprefix(FILE), field="student.weights")
    if not path.is_file():
        raise EncoderError(f"student.weights: {path} is not a file")
    return digest_file(path)


def read_same_images(
    study: StudyConfig, home: Path, *, data: DataSummary | None, reads_results: bool = False
) -> Materials:
    """Reads the study's images; raises KdsearchError if they or their split differ from ``data``.

    ``reads_results``: rules about files that are newer than the trials are not applied.
    """
    images = read_images(study, home, stored=data if reads_results else None)
    if data is not None and data.split != images.splits.fingerprint:
        raise KdsearchError(
            f"study {study.name}: the images or their split have changed since its trials were trained (was "
            f"{data.split}, now {images.splits.fingerprint}); restore them, or name their folder with --data"
        )
    unlabelled = None if images.unlabelled is None else images.unlabelled.fingerprint
    if data is not None and data.unlabelled_fingerprint != unlabelled:
        raise KdsearchError(
            f"study {study.name}: data.unlabelled: the images have changed since its trials were trained; restore "
            "them, or name their folder with --data NAME=FOLDER"
        )
    return images


def open_materials(study: StudyConfig, home: Path, *, data: DataSummary | None, teacher_id: str) -> Materials:
    """Opens the study's images, split and teacher; ``data`` describes the images that its trials were trained on.

    If the images have changed or are unavailable, opens the cached ones. Raises KdsearchError if they are not in the
    cache either, or if the teacher is not.
    """
    try:
        images = read_same_images(study, home, data=data, reads_results=True)
    except KdsearchError as error:
        kept = None if data is None else _kept_images(study, home, data, why=first_line(error))
        if kept is None:
            raise
        logger.warning("using cached images, because the study's own cannot be used: %s", first_line(error))
        images = kept
    folder = home / "teachers" / teacher_id
    teacher = open_teacher(recipe_in(folder, study.data.task) or TeacherRecipe.of(study), folder)
    if teacher is None:
        raise KdsearchError(
            f"study {study.name}: its teacher is not in {home / 'teachers'}. Have the images, the teacher's settings "
            "or KDSEARCH_HOME changed since? kdsearch run trains it again"
        )
    return dataclasses.replace(images, trained_teacher=teacher)


def _kept_images(study: StudyConfig, home: Path, data: DataSummary, *, why: str) -> Materials | None:
    """Opens the images of the study's trials from the cache; None if they are not in it."""
    try:
        dataset = open_dataset(home, data.fingerprint)
    except (OSError, EOFError, ValueError, LookupError):  # missing or damaged
        return None
    splits = split(dataset, study.data.split, train_on_negatives=study.data.train_on_negatives)
    unlabelled = load_unlabelled(study.data, home, dataset, splits)
    found = None if unlabelled is None else unlabelled.fingerprint
    if splits.fingerprint != data.split or found != data.unlabelled_fingerprint:
        return None
    return Materials(dataset=dataset, splits=splits, unlabelled=unlabelled, cached_because=why)


def clear_checkpoints(study: StudyConfig, home: Path, records: Iterable[TrialRecord], *, study_id: str) -> None:
    """Removes checkpoints of ended trials that a killed driver or worker left behind.

    Raises SearchError if the folder for checkpoints cannot be used.
    """
    folder = checkpoint_folder(home, study.name, study.search.checkpoint_url, study_id=study_id)
    ended = {record.number for record in records if record.outcome != "running"}
    try:
        for name in names_in(folder):
            number = name.partition(".")[0]
            if number.isdigit() and int(number) in ended:
                remove(f"{folder}/{number}.checkpoint")
    except (ImportError, ValueError, OSError) as error:
        raise SearchError(
            f"search.checkpoint_url: {folder} cannot be used: {error}; name a folder, or a URL whose fsspec library is "
            "installed, such as s3fs for s3://"
        ) from error
