"""Hypervolume of Dice against log10 of parameters."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.front.dominance import hypervolume

POINTS = st.lists(st.tuples(st.floats(10, 1e7), st.floats(0, 1)), max_size=12)


def test_one_and_two_students():
    assert hypervolume([(1_000, 0.5)], most_params=1e6) == pytest.approx(0.5 * 3)
    assert hypervolume([(1_000, 0.5), (10_000, 0.8)], most_params=1e6) == pytest.approx(0.5 * 3 + 0.3 * 2)


def test_dominated_and_too_large_students_add_nothing():
    front = [(1_000, 0.5), (10_000, 0.8)]
    assert hypervolume([*front, (20_000, 0.7), (2e6, 0.99)], most_params=1e6) == hypervolume(front, most_params=1e6)
    assert hypervolume([], most_params=1e6) == 0


@given(POINTS)
def test_area_is_that_of_optunas(points):
    import numpy as np

    losses = np.array([[np.log10(params), -dice] for params, dice in points]).reshape(-1, 2)
    reference = np.array([6.0, 0.0])
    inside = losses[(losses <= reference).all(axis=1)]
    expected = optuna._hypervolume.compute_hypervolume(inside, reference) if len(inside) else 0.0
    assert hypervolume(points, most_params=1e6) == pytest.approx(expected, abs=1e-9)
