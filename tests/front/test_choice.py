"""Choosing within a budget."""

from __future__ import annotations

import pytest

from kdsearch.front.choice import Budget, best_within, nearest_to
from tests.front.students import student

STUDENTS = [
    student(0, 0.60, 1_000, 10),
    student(1, 0.75, 50_000, 80),
    student(2, 0.80, 820_000, 500),
    student(3, 0.80, 900_000, 400),
]


@pytest.mark.parametrize(
    ("budget", "number"),
    [
        ({}, 2),
        ({"params": 820_000}, 2),
        ({"params": 819_999}, 1),
        ({"macs": 400}, 3),
        ({"params": 50_000, "min_dice": 0.7}, 1),
        ({"params": 40_000, "min_dice": 0.7}, None),
        ({"min_dice": 0.81}, None),
        ({"params": 999}, None),
    ],
)
def test_best_student_within_the_budget(budget, number):
    found = best_within(STUDENTS, Budget(**budget))
    assert (found.number if found else None) == number


def test_smaller_of_equals_is_taken():
    assert best_within(list(reversed(STUDENTS)), Budget()).number == 2


@pytest.mark.parametrize(
    ("budget", "number"), [({"params": 999}, 0), ({"min_dice": 0.81}, 2), ({"params": 45_000, "min_dice": 0.74}, 1)]
)
def test_nearest_student_misses_by_least(budget, number):
    assert nearest_to(STUDENTS, Budget(**budget)).number == number


def test_budget_reads_as_it_was_typed():
    assert (
        str(Budget(params=820_000, macs=50_000_000, min_dice=0.7)) == "params ≤ 820,000, macs ≤ 50,000,000, dice ≥ 0.7"
    )
    assert str(Budget()) == "no budget"
