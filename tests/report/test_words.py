"""Students, teachers and sizes in words."""

from __future__ import annotations

import pytest

from kdsearch.config.distillation import LOSSES as LOSSES_OF_PATHS
from kdsearch.config.distillation import AffinityTerm, DistillationSpec, DmlTerm, MseTerm
from kdsearch.config.networks import OnnxTeacher, TeacherConfig, TimmSpec, UNetSpec
from kdsearch.report.words import (
    LOSSES,
    best_by_size,
    distillation_words,
    layers_words,
    student_words,
    teacher_words,
)
from tests.front.students import student


@pytest.mark.parametrize(
    ("spec", "words", "layers"),
    [
        (
            UNetSpec(width=8, depth=4, growth=1.3, convs_per_stage=2, conv="separable"),
            "5 stages from 8 channels, ×1.3",
            "2 separable convolutions per stage",
        ),
        (
            TimmSpec(family="timm", encoder="mobilenetv3_small_050", weights="none", depth=3, width=16),
            "mobilenetv3_small_050, 3 stages, 16-channel decoder",
            "1 separable convolution per decoder stage",
        ),
    ],
)
def test_student_in_words(spec, words, layers):
    assert (student_words(spec), layers_words(spec)) == (words, layers)


def _mse(stride):
    return MseTerm(path="attention", loss="mse", stride=stride)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ((DmlTerm(path="logits", loss="dml"),), "logits (DML)"),
        ((MseTerm(path="hidden", loss="mse", stride=8),), "hidden at stride 8 (MSE)"),
        (
            (DmlTerm(path="logits", loss="dml"), _mse(4), _mse(8), AffinityTerm(path="hidden", loss="affinity")),
            "logits (DML) + attention at strides 4, 8 (MSE) + hidden (affinity)",
        ),
    ],
)
def test_distillation_in_words(terms, words):
    assert distillation_words(DistillationSpec(terms=terms, loss_mix="add")) == words
    assert distillation_words(None) == "no teacher"


def test_every_loss_has_a_display_name():
    assert set(LOSSES) == {loss for losses in LOSSES_OF_PATHS.values() for loss in losses}


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (TeacherConfig(), "U-Net with tf_efficientnet_lite0 (pretrained)"),
        (TeacherConfig(weights="none", ensemble=3), "3 × U-Net with tf_efficientnet_lite0 (from scratch)"),
        (TeacherConfig(checkpoint="mine.safetensors"), "U-Net with tf_efficientnet_lite0 (mine.safetensors)"),
        (OnnxTeacher(kind="onnx", file="mine.onnx"), "ONNX file mine.onnx"),
    ],
)
def test_teacher_in_words(teacher, words):
    assert teacher_words(teacher) == words


def test_best_student_up_to_each_size():
    students = [
        student(0, 0.5, 900),
        student(1, 0.6, 9_000),
        student(2, 0.55, 40_000),
        student(3, 0.7, 400_000),
        student(4, 0.7, 300_000),
        student(5, 0.8, 2_000_000),
    ]
    best = [(size, one.number) for size, one in best_by_size(students)]
    assert best == [("up to 10k", 1), ("up to 500k", 4), ("over 1M", 5)], "none up to 50k is better than 1"
    assert best_by_size([]) == []
