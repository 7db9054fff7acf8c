"""A study's images, split and teacher, and a student with weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kdsearch.config.load import load_study
from kdsearch.config.study import StudyConfig
from kdsearch.distill.materials import Materials
from kdsearch.export.description import Description
from kdsearch.export.folder import Form, Provenance, ship_student
from kdsearch.export.seen import dump_seen
from kdsearch.models.students import build_student
from tests.front.students import student
from tests.search.setups import make_materials
from tests.shared import made_once

PLAIN = Form(preprocessing=False, int8_bound=1.0, latency=False)
FILE = "w.safetensors"


@dataclass(frozen=True, slots=True)
class Bench:
    """A study and its materials."""

    study: StudyConfig
    materials: Materials


@pytest.fixture(scope="session")
def bench(tiny_home) -> Bench:
    """Forty phantoms of 32 pixels and a teacher of one epoch."""
    study = load_study(tiny_home / "tiny.yaml")
    return Bench(study, make_materials(study, tiny_home))


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """Random weights of ``student(3, …)``, with batch norms that have seen something."""
    network = build_student(student(3, 0.7, 10).recipe.student, seed=3)
    network.train()
    for _ in range(5):
        network(torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return made_once(tmp_path_factory, "weights", lambda folder: save_file(tensors, folder / FILE)) / FILE


@pytest.fixture(scope="session")
def shipped(bench, weights, tmp_path_factory) -> Path:
    """The folder of a picked student; tests that change it copy it first."""

    def make(folder: Path) -> None:
        ship(bench, weights, folder / "s-3", form=dataclasses.replace(PLAIN, latency=True))

    return made_once(tmp_path_factory, "shipped", make) / "s-3"


def ship(bench: Bench, weights: Path, folder: Path, *, form: Form = PLAIN) -> Description:
    """Writes ``student(3, …)`` to the folder."""
    return ship_student(
        student(3, 0.7, 10),
        bench.study,
        bench.materials,
        weights=weights,
        overlays=b"png",
        form=form,
        provenance=Provenance(chosen="By hand.", seen=dump_seen(bench.materials.dataset, bench.materials.splits)),
        folder=folder,
    )
