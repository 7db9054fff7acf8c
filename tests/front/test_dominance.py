"""The front, compared with Optuna's and calculated by hand."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.config.search import Limits
from kdsearch.front.dominance import front_of, hypervolume, non_dominated
from kdsearch.front.rules import Budget, Candidate
from tests.front.students import student

optuna.logging.set_verbosity(optuna.logging.ERROR)
POINTS = st.lists(st.tuples(*[st.integers(min_value=0, max_value=4)] * 3), min_size=1, max_size=25)


@given(POINTS)
@settings(max_examples=60, deadline=None)
def test_front_equals_optuna_s_including_ties(points):
    study = optuna.create_study(directions=["minimize"] * 3)
    for point in points:
        study.add_trial(optuna.trial.create_trial(values=[float(value) for value in point]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {trial.number for trial in study.best_trials}
    kept = non_dominated(np.array(points, dtype=float))
    assert set(np.flatnonzero(kept)) == expected


@pytest.mark.parametrize(
    ("points", "kept"),
    [
        ([[1, 2], [2, 1], [2, 2]], [True, True, False]),
        ([[1, 1], [1, 1]], [True, True]),
        ([[1, 1], [1, 2]], [True, False]),
        ([[0, 0]], [True]),
    ],
)
def test_front_by_hand(points, kept):
    assert non_dominated(np.array(points, dtype=float)).tolist() == kept


def test_front_maximizes_dice_and_minimizes_sizes():
    students = [student(0, 0.5, 100), student(1, 0.6, 100), student(2, 0.6, 200), student(3, 0.7, 300, macs=2000)]
    assert [member.number for member in front_of(students, ("dice", "params", "macs"))] == [1, 3]
    assert [member.number for member in front_of(students, ("dice",))] == [3]
    assert [member.number for member in front_of(students, ("params",))] == [0, 1]
    assert front_of([], ("dice",)) == ()


def test_students_below_the_minimum_specificity_are_not_on_the_front():
    def marking(number, dice, share):
        made = student(number, dice, 100 + number)
        overlap = dataclasses.replace(made.scores.overlap, specificity=share, empty_images=10)
        return dataclasses.replace(made, scores=dataclasses.replace(made.scores, overlap=overlap))

    students = [marking(0, 0.7, 0.9), marking(1, 0.8, 0.3), marking(2, 0.75, 0.8), student(3, 0.9, 500)]
    limits = Limits(min_specificity=0.8)
    assert [member.number for member in front_of(students, ("dice", "params"), limits)] == [0, 2]
    assert [member.number for member in front_of(students, ("dice", "params"))] == [0, 1, 3]
    measured = students[:3]
    assert [member.number for member in front_of(measured, ("dice", "specificity"))] == [0, 1, 2]
    assert [member.number for member in front_of(measured, ("specificity",))] == [0]
    within = [one.number for one in measured if Budget(min_specificity=0.8).excess(Candidate(student=one)) <= 0]
    assert within == [0, 2]
    assert Budget(min_specificity=0.8).excess(Candidate(student=students[3])) > 0, "its specificity is unknown"
    assert str(Budget(min_specificity=0.8)) == "specificity ≥ 0.8"


POINTS = st.lists(st.tuples(st.floats(10, 1e7), st.floats(0, 1)), max_size=12)


def test_hypervolume_of_one_and_two_students_by_hand():
    assert hypervolume([(1_000, 0.5)], most_params=1e6) == pytest.approx(0.5 * 3)
    assert hypervolume([(1_000, 0.5), (10_000, 0.8)], most_params=1e6) == pytest.approx(0.5 * 3 + 0.3 * 2)


def test_dominated_and_too_large_students_add_no_hypervolume():
    front = [(1_000, 0.5), (10_000, 0.8)]
    assert hypervolume([*front, (20_000, 0.7), (2e6, 0.99)], most_params=1e6) == hypervolume(front, most_params=1e6)
    assert hypervolume([], most_params=1e6) == 0


@given(POINTS)
def test_hypervolume_agrees_with_optuna(points):
    import numpy as np

    losses = np.array([[np.log10(params), -dice] for params, dice in points]).reshape(-1, 2)
    reference = np.array([6.0, 0.0])
    inside = losses[(losses <= reference).all(axis=1)]
    expected = optuna._hypervolume.compute_hypervolume(inside, reference) if len(inside) else 0.0
    assert hypervolume(points, most_params=1e6) == pytest.approx(expected, abs=1e-9)
