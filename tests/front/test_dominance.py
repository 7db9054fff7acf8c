"""The front against Optuna's own, and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.front.dominance import non_dominated
from kdsearch.front.members import front_of
from tests.front.students import student

optuna.logging.set_verbosity(optuna.logging.ERROR)
POINTS = st.lists(st.tuples(*[st.integers(min_value=0, max_value=4)] * 3), min_size=1, max_size=25)


@given(POINTS)
@settings(max_examples=60, deadline=None)
def test_front_is_optuna_s_with_ties(points):
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


def test_dice_goes_up_and_sizes_go_down():
    students = [student(0, 0.5, 100), student(1, 0.6, 100), student(2, 0.6, 200), student(3, 0.7, 300, macs=2000)]
    assert [member.number for member in front_of(students, ("dice", "params", "macs"))] == [1, 3]
    assert [member.number for member in front_of(students, ("dice",))] == [3]
    assert [member.number for member in front_of(students, ("params",))] == [0, 1]
    assert front_of([], ("dice",)) == ()
