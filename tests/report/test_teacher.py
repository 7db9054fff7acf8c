"""The warning about a teacher that scores no better than undistilled students."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kdsearch.report.teacher import LITTLE_TO_LEARN, no_better_than_plain
from kdsearch.trials.scores import PerImage
from tests.front.students import scores, student


@pytest.mark.parametrize(
    ("students", "said"),
    [
        ([student(0, 0.9, 10), student(1, 0.7, 10, path="none")], False),
        ([student(0, 0.7, 10), student(1, 0.81, 10, path="none"), student(2, 0.82, 10, path="none")], True),
        ([student(0, 0.9, 10)], False),
        ([], False),
    ],
)
def test_teacher_is_compared_with_the_best_undistilled_student(students, said):
    text = no_better_than_plain(students, scores(dice=0.8, params=1_000, macs=1))
    assert bool(text) == said
    if said:
        assert text.startswith(
            "The teacher (80.0 % Dice) scores no better than trial 2 (82.0 %), which was trained without it"
        )


def _scored(dice, *, teacher=False, number=0):
    per_image = PerImage(dice=tuple(dice), iou=tuple(dice), empty=(0.0,) * len(dice))
    one = student(number, float(np.mean(dice)), 10, path="none")
    found = dataclasses.replace(one.scores, per_image=per_image)
    return found if teacher else dataclasses.replace(one, scores=found)


def _study(*, better, students=10, images=97, noise=0.13, seed=0):
    """A teacher that is truly better by this much than each of several equal undistilled students."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0.4, 0.8, images)
    teacher = _scored(image + better + rng.normal(0, noise, images), teacher=True)
    made = [_scored(image + rng.normal(0, noise, images), number=number) for number in range(students)]
    return made, teacher


def test_definite_warning_needs_certainty_that_the_teacher_gains_under_2_points():
    students, teacher = _study(better=-0.05, noise=0.02)
    assert LITTLE_TO_LEARN in no_better_than_plain(students, teacher)
    students, teacher = _study(better=0.0, noise=0.2, seed=1)
    text = no_better_than_plain(students, teacher)
    assert "On new images it may be up to" in text
    assert LITTLE_TO_LEARN not in text


def test_teacher_that_is_truly_better_seldom_gets_the_definite_warning():
    """Comparing only Dice would warn in 64 % of studies, although the teacher is truly 2 points better."""
    texts = [no_better_than_plain(*_study(better=0.02, seed=seed)) for seed in range(40)]
    assert sum(LITTLE_TO_LEARN in text for text in texts) <= 2


def test_warning_is_indefinite_if_dice_per_image_was_not_stored():
    text = no_better_than_plain([student(1, 0.81, 10, path="none")], scores(dice=0.8, params=1_000, macs=1))
    assert text.endswith("Whether it is better on new images is unknown.")


def test_study_without_a_teacher_has_no_warning():
    assert no_better_than_plain([student(1, 0.9, 10, path="none")], None) == ""
