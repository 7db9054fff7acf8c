"""Whole studies, searched and confirmed, of which it is known beforehand whether distillation helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kdsearch
from kdsearch.config.load import load_study
from kdsearch.data.cache import load_dataset

pytestmark = pytest.mark.slow

CLEAN = """
name: clean
data: {sources: [{reader: phantom, images: 300}], size: 32}
teacher: {encoder_depth: 3, training: {epochs: 12, learning_rate: 3e-3, encoder_lr_factor: 1}}
student: {width: 4, depth: 2, convs_per_stage: 1}
distillation: {path: none}
training: {epochs: 1}
search: {trials: 1, startup_trials: 1, executor: inline}
"""
OVERLOOKED = """
name: overlooked
data: {sources: [{reader: folder, folder: overlooked}], size: 32, train_on_negatives: true}
teacher: {encoder_depth: 3, checkpoint: teacher.safetensors}
student: {width: {choice: [4, 6]}, depth: 2, convs_per_stage: 1}
distillation: {path: logits, loss: dml, weight: WEIGHT, loss_mix: interpolate}
training: {epochs: 15, learning_rate: 5e-3}
search: {trials: 2, startup_trials: 2, workers: 2}
confirm: {folds: 5, students: 1}
"""
"""About two thirds of the student masks miss their lesion; the teacher was trained with correct masks."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Images whose masks mostly lack their lesion, and a teacher that was trained with every lesion."""
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
        (place / "clean.yaml").write_text(CLEAN, encoding="utf-8")
        kdsearch.Study("clean.yaml", home="home").run()
        (weights,) = place.glob("home/teachers/*/teacher.safetensors")
        weights.rename(place / "teacher.safetensors")
        dataset = load_dataset(load_study(Path("clean.yaml")).data, Path("home"))
    overlooked = np.random.default_rng(0).random(len(dataset.infos)) < 0.65
    for kind, arrays in (("images", dataset.images), ("masks", dataset.masks)):
        (place / "overlooked" / kind).mkdir(parents=True)
        for number, array in enumerate(arrays):
            shown = np.asarray(array[0]) if kind == "images" else (array > 0) * np.uint8(255 * (not overlooked[number]))
            Image.fromarray(shown).save(place / "overlooked" / kind / f"{number:03d}.png")
    return place


def _confirmed(place, monkeypatch, *, weight, repetitions):
    monkeypatch.chdir(place)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    file = place / f"overlooked-{weight}.yaml"
    text = OVERLOOKED.replace("WEIGHT", weight).replace(
        "name: overlooked", f"name: overlooked-{weight.replace('.', '-')}"
    )
    file.write_text(text, encoding="utf-8")
    return kdsearch.Study(file, home="home").run().confirm(repetitions=repetitions)


def test_teacher_that_knows_what_masks_lack_helps(place, monkeypatch):
    found = _confirmed(place, monkeypatch, weight="1.0", repetitions=2)
    assert found.verdict == "helps"
    assert found.pooled.mean > 0.15


def test_verdict_is_inconclusive_if_the_teacher_has_almost_no_weight(place, monkeypatch):
    found = _confirmed(place, monkeypatch, weight="0.001", repetitions=1)
    assert found.members[0].path != "none", "it counts as distilled"
    assert found.verdict == "inconclusive"
    assert found.pooled.mean != 0, "a weight of 0.001 still changes the scores"
