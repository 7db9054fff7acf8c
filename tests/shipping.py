"""A study's images, split and teacher, and a student with weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kdsearch.config.load import load_study
from kdsearch.data.cache import load_dataset
from kdsearch.data.splits import split
from kdsearch.distill.arrays import training_data
from kdsearch.distill.teacher import teacher_folder, train_teacher
from kdsearch.export.folder import Form, Workbench, ship_student
from kdsearch.models.students import build_student
from tests.front.students import student
from tests.tiny import TINY

PLAIN = Form(preprocessing=False, int8_bound=1.0)


@pytest.fixture(scope="session")
def bench(tmp_path_factory) -> Workbench:
    """Forty phantoms of 32 pixels and a teacher of one epoch."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    study = load_study(folder / "tiny.yaml")
    dataset = load_dataset(study.data, folder)
    splits = split(dataset, study.data.split, train_without_lesion=False)
    training = train_teacher(
        study,
        training_data(dataset, splits, torch.device("cpu")),
        teacher_folder(study, splits.fingerprint, folder),
    )
    while True:
        try:
            next(training)
        except StopIteration as stop:
            return Workbench(study=study, dataset=dataset, splits=splits, teacher=stop.value)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """Random weights of ``student(3, …)``, with batch norms that have seen something."""
    network = build_student(student(3, 0.7, 10).recipe.student, seed=3)
    network.train()
    for _ in range(5):
        network(torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="session")
def shipped(bench, weights, tmp_path_factory) -> Path:
    """The folder of a picked student; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("shipped") / "s-3"
    ship_student(
        student(3, 0.7, 10), bench, weights=weights, overlays=b"png", form=PLAIN, chosen="By hand.", folder=folder
    )
    return folder
