"""Brings together what a finished student is checked and shown with."""

from __future__ import annotations

from pathlib import Path

from kdsearch.config.study import StudyConfig
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import DataSummary
from kdsearch.data.splits import split
from kdsearch.distill.teacher import open_teacher, teacher_folder
from kdsearch.errors import KdsearchError
from kdsearch.export.folder import Workbench


def open_workbench(study: StudyConfig, home: Path, *, data: DataSummary | None) -> Workbench:
    """The study's images, split and cached teacher; ``data`` is what its trials were made from.

    Raises KdsearchError where one of them is not there, or the images are others.
    """
    dataset = load_dataset(study.data, home)
    splits = split(dataset, study.data.split, train_without_lesion=study.data.train_without_lesion)
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
    return Workbench(study=study, dataset=dataset, splits=splits, teacher=teacher)
