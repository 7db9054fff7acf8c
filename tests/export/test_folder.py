"""A picked student's folder is whole or not there."""

from __future__ import annotations

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from kdsearch.config.recipe import Recipe
from kdsearch.config.study import StudyConfig
from kdsearch.errors import KdsearchError
from kdsearch.export.folder import export_student
from kdsearch.models.unet import build_student
from tests.front.students import student

STUDY = StudyConfig(name="s")


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(
        {k: v.contiguous() for k, v in build_student(student(3, 0.7, 10).recipe.student).state_dict().items()}, path
    )
    return path


def test_folder_rebuilds_the_student(weights, tmp_path):
    export_student(student(3, 0.7, 10), STUDY, weights, tmp_path / "out" / "s-3")
    described = yaml.safe_load((tmp_path / "out" / "s-3" / "student.yaml").read_text())
    recipe = Recipe.model_validate(described["recipe"])
    rebuilt = build_student(recipe.student)
    rebuilt.load_state_dict(load_file(tmp_path / "out" / "s-3" / "model.safetensors"))
    assert rebuilt(torch.zeros(1, 1, *described["input"]["size"])).shape == (1, 1, 128, 128)
    assert described["scores"]["dice"] == 0.7
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["s-3"]


def test_existing_folder_is_left_alone(weights, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(KdsearchError, match="out exists already; remove it, or name another folder with --out"):
        export_student(student(3, 0.7, 10), STUDY, weights, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_missing_weights_are_said_and_nothing_is_written(tmp_path):
    with pytest.raises(KdsearchError, match="the weights of trial 3 are not at"):
        export_student(student(3, 0.7, 10), STUDY, tmp_path / "absent", tmp_path / "out")
    assert not (tmp_path / "out").exists()
