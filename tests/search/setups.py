"""What workers need, for tests of executors."""

from __future__ import annotations

from pathlib import Path

import torch

from kdsearch.config.study import StudyConfig
from kdsearch.data.cache import load_dataset
from kdsearch.data.splits import split
from kdsearch.distill.arrays import training_data
from kdsearch.distill.teacher import teacher_folder, train_teacher
from kdsearch.search.executors.tasks import Setup


def make_setup(study: StudyConfig, home: Path) -> Setup:
    """The study's data and teacher, made there, for workers of one thread."""
    dataset = load_dataset(study.data, home)
    splits = split(dataset, study.data.split, train_without_lesion=False)
    folder = teacher_folder(study, splits.fingerprint, home)
    for _ in train_teacher(study, training_data(dataset, splits, torch.device("cpu")), folder):
        pass
    return Setup(
        home=home,
        data_fingerprint=dataset.fingerprint,
        splits=splits,
        teacher=study.teacher,
        teacher_folder=folder,
        size=study.data.size,
        device="cpu",
        threads=1,
    )
