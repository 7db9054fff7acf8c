"""A teacher that has nothing to teach is said so."""

from __future__ import annotations

import pytest

from kdsearch.report.teacher import no_better_than_plain
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
def test_teacher_is_compared_with_the_best_plain_student(students, said):
    text = no_better_than_plain(students, scores(dice=0.8, params=1_000, macs=1))
    assert bool(text) == said
    if said:
        assert text.startswith(
            "The teacher (80.0 % Dice) scores no better than trial 2 (82.0 %), which learnt from masks alone"
        )


def test_study_without_a_teacher_has_nothing_said_of_it():
    assert no_better_than_plain([student(1, 0.9, 10, path="none")], None) == ""
