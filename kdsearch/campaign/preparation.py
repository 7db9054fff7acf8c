"""The images that a campaign trains on and scores with, and the teacher of a study that has been run."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kdsearch.campaign.wanted_teachers import WantedTeacher
from kdsearch.config.search import SearchConfig
from kdsearch.config.study import StudyConfig
from kdsearch.data.cache import load_dataset, load_unlabelled, open_dataset
from kdsearch.data.dataset import DataSummary
from kdsearch.data.source import check_tables
from kdsearch.data.splits import split
from kdsearch.distill.materials import Materials
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import open_teacher, recipe_in
from kdsearch.errors import EncoderError, KdsearchError, SearchError, first_line
from kdsearch.files.digests import digest_file
from kdsearch.files.home import checkpoint_folder, expanded
from kdsearch.files.whole import names_in, remove
from kdsearch.trials.recipe import FILE
from kdsearch.trials.record import TrialRecord

logger = logging.getLogger(__name__)


def read_images(study: StudyConfig, home: Path, *, stored: DataSummary | None = None) -> Materials:
    """The study's images and their split; raises KdsearchError where they cannot be had, or lack what it asks for.

    ``stored`` is what its trials were made from, for whoever only reads their results: rules on files that came later
    do not apply then.
    """
    if stored is None:
        check_tables(study.data)
    dataset = load_dataset(study.data, home, stored=None if stored is None else stored.fingerprint)
    splits = split(dataset, study.data.split, train_on_negatives=study.data.train_on_negatives)
    _require_empty_images(study.search, dataset.has_lesion[list(splits.validation)])
    unlabelled = load_unlabelled(study.data, home, dataset, splits)
    return Materials(dataset=dataset, splits=splits, unlabelled=unlabelled)


def require_same_teacher(study: StudyConfig, images: Materials, home: Path, *, teacher_id: str) -> None:
    """Raises KdsearchError where a file that a teacher is taken from is not what the study's trials learnt from."""
    if study.teacher.file is None:
        return
    now = WantedTeacher(recipe=TeacherRecipe.of(study), images=images).folder(home).name
    if now != teacher_id:
        raise KdsearchError(
            f"study {study.name}: teacher: {study.teacher.file} is not what its trials learnt from ({teacher_id}, now "
            f"{now}); restore it, or give the study another name"
        )


def student_weights(study: StudyConfig) -> str:
    """Stands for the content of a file of weights that students begin with; empty where there is none.

    Raises EncoderError where it is not there.
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
    """The images and split that its trials were made from, as ``data`` says; raises KdsearchError for others.

    ``reads_results``: rules on files that came after the trials do not apply.
    """
    images = read_images(study, home, stored=data if reads_results else None)
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


def open_materials(study: StudyConfig, home: Path, *, data: DataSummary | None, teacher_id: str) -> Materials:
    """The study's images, split and the teacher of that id; ``data`` is what its trials were made from.

    If the study's folders hold other images by now, or none, those that the trials were made from come from the cache.
    Raises KdsearchError if they are not there either, or the teacher is not.
    """
    try:
        images = read_same_images(study, home, data=data, reads_results=True)
    except KdsearchError as error:
        kept = None if data is None else _kept_images(study, home, data, why=first_line(error))
        if kept is None:
            raise
        logger.warning("the images come from the cache, because the study's own cannot be used: %s", first_line(error))
        images = kept
    folder = home / "teachers" / teacher_id
    teacher = open_teacher(recipe_in(folder) or TeacherRecipe.of(study), folder)
    if teacher is None:
        raise KdsearchError(
            f"study {study.name}: its teacher is not under {home / 'teachers'}; were the images, the teacher's "
            "settings or KDSEARCH_HOME others then? kdsearch run trains it"
        )
    return dataclasses.replace(images, trained_teacher=teacher)


def _kept_images(study: StudyConfig, home: Path, data: DataSummary, *, why: str) -> Materials | None:
    """The images that the study's trials were made from as the cache holds them; None if it doesn't."""
    try:
        dataset = open_dataset(home, data.fingerprint)
    except (OSError, EOFError, ValueError, LookupError):  # not there, or damaged
        return None
    splits = split(dataset, study.data.split, train_on_negatives=study.data.train_on_negatives)
    unlabelled = load_unlabelled(study.data, home, dataset, splits)
    found = None if unlabelled is None else unlabelled.fingerprint
    if splits.fingerprint != data.split or found != data.unlabelled_fingerprint:
        return None
    return Materials(dataset=dataset, splits=splits, unlabelled=unlabelled, cached_because=why)


def _require_empty_images(search: SearchConfig, lesions: npt.NDArray[np.bool_]) -> None:
    """Raises SearchError where ``specificity`` would be of no images."""
    if lesions.all() and ("specificity" in search.objectives or search.limits.min_specificity is not None):
        raise SearchError(
            "search: specificity is of validation images without a lesion, and there is none; remove it from "
            "objectives and limits, or add such images to data.sources"
        )


def clear_checkpoints(study: StudyConfig, home: Path, records: Iterable[TrialRecord], *, study_id: str) -> None:
    """Removes the states of ended trials that a killed driver or worker left behind.

    Raises SearchError where the place for checkpoints cannot be used.
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
