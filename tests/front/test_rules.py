"""Choosing a student within a budget by a rule."""

from __future__ import annotations

import pytest

from kdsearch.front.rules import Budget, Candidate, Rule, nearest_to
from tests.front.students import student

STUDENTS = [
    Candidate(student=student(0, 0.60, 1_000, 10), latency_ms=1.0, file_bytes=9_000),
    Candidate(student=student(1, 0.75, 50_000, 80), latency_ms=4.0, file_bytes=210_000),
    Candidate(student=student(2, 0.80, 820_000, 500), latency_ms=3.0, file_bytes=3_300_000),
    Candidate(student=student(3, 0.80, 900_000, 400), latency_ms=2.0, file_bytes=3_600_000),
]


def _pick(rule, budget):
    ranked = rule.rank([entry for entry in STUDENTS if budget.excess(entry) <= 0])
    return ranked[0].student.number if ranked else None


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
        ({"latency_ms": 2.0}, 3),
        ({"latency_ms": 3.5, "file_bytes": 3_400_000}, 2),
        ({"latency_ms": 0.5}, None),
    ],
)
def test_best_student_within_the_budget(budget, number):
    assert _pick(Rule(), Budget(**budget)) == number


def test_smaller_of_equally_good_students_is_picked():
    assert [entry.student.number for entry in Rule().rank(list(reversed(STUDENTS)))] == [2, 3, 1, 0]


@pytest.mark.parametrize(("tolerance", "number"), [(0.0, 2), (0.049, 2), (0.0501, 1), (0.3, 0)])
def test_smallest_within_loses_at_most_the_tolerance_in_dice(tolerance, number):
    assert _pick(Rule(name="smallest-within", tolerance=tolerance), Budget()) == number


def test_smallest_within_counts_from_the_best_within_the_budget():
    rule = Rule(name="smallest-within", tolerance=0.1)
    assert _pick(rule, Budget(params=50_000)) == 1


def test_knee_is_where_dice_stops_rising_with_the_logarithm_of_parameters():
    numbers = [(0.50, 1_000), (0.78, 10_000), (0.79, 100_000), (0.80, 1_000_000), (0.70, 20_000)]
    candidates = [Candidate(student=student(i, dice, params)) for i, (dice, params) in enumerate(numbers)]
    ranked = [entry.student.number for entry in Rule(name="knee").rank(candidates)]
    assert ranked[0] == 1
    assert 4 not in ranked


def test_knee_of_two_is_the_better_one():
    assert Rule(name="knee").rank(STUDENTS[:2])[0].student.number == 1


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            Rule(),
            "Trial 2 has the best validation Dice of 4 students within params ≤ 900,000: Dice 80.0 %, 820k params",
        ),
        (
            Rule(name="smallest-within", tolerance=0.01),
            (
                "Trial 2 is the smallest student within 1 Dice point of the best of 4 students within params ≤ 900,000 "
                "(2 qualify)"
            ),
        ),
        (Rule(name="knee"), "Trial 1 is the knee of 4 students within params ≤ 900,000"),
    ],
)
def test_choice_is_explained_in_a_sentence(rule, words):
    assert rule.explain(rule.rank(STUDENTS), count=4, budget=Budget(params=900_000)).startswith(words)


@pytest.mark.parametrize(
    ("budget", "number"), [({"params": 999}, 0), ({"min_dice": 0.81}, 2), ({"params": 45_000, "min_dice": 0.74}, 1)]
)
def test_nearest_student_misses_the_budget_by_the_least(budget, number):
    assert nearest_to(STUDENTS, Budget(**budget)).student.number == number


def test_budget_is_shown_in_the_units_people_type():
    assert (
        str(Budget(params=820_000, macs=50_000_000, min_dice=0.7)) == "params ≤ 820,000, macs ≤ 50,000,000, dice ≥ 0.7"
    )
    assert str(Budget(latency_ms=5, file_bytes=300_000)) == "latency ≤ 5 ms, file ≤ 300kB"
    assert str(Budget()) == "no budget"
