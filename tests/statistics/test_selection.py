"""Selection bias and the stability of the front, for known true values."""

from __future__ import annotations

import numpy as np
import pytest

from kdsearch.front.dominance import non_dominated
from kdsearch.statistics.resampling import resample
from kdsearch.statistics.selection import selection_bias, standings

RNG = np.random.default_rng(0)


def _alone(count):
    return [str(index) for index in range(count)]


def _study(rng, true, *, images=80, sd=0.24):
    """Dice of students on the same images, which are hard or easy for all of them."""
    shared = sd * np.sqrt(0.7) * rng.normal(size=images)
    return [one + shared + sd * np.sqrt(0.3) * rng.normal(size=images) for one in true]


def test_groups_are_drawn_whole_and_left_out_images_are_scored():
    rows = np.array([[0.0, 0.0, 1.0, 1.0, 0.4]])
    found = resample(rows, ["a", "a", "b", "b", "c"], draws=400)
    seen = {round(value, 3) for value in found.drawn[0]}
    assert {0.0, 1.0} <= seen, "three draws of one group"
    assert {round(value, 3) for value in found.left_out[0]} <= {0.0, 0.4, 1.0, 0.5, 0.133, 0.8}
    assert found.apparent[0] == pytest.approx(0.48)


def test_too_few_images_give_no_resampling_results():
    assert resample(np.array([[0.5, np.nan]]), ["a", "b"]) is None
    assert standings([np.array([0.5])], np.array([[1.0]]), ["a"]) is None
    assert selection_bias([np.array([0.5]), np.array([0.6])], ["a"]) == 0.0


def test_front_stability_equals_that_of_fronts_drawn_one_by_one():
    costs = np.array([[10, 5], [20, 5], [20, 9], [40, 3], [20, 5]], dtype=float)
    dice = _study(RNG, [0.6, 0.62, 0.63, 0.61, 0.62])
    found = standings(dice, costs, _alone(80), draws=300)
    drawn = resample(np.stack(dice), _alone(80), draws=300).drawn
    fronts = [non_dominated(np.column_stack([-column, costs])) for column in drawn.T]
    assert [one.stability for one in found] == pytest.approx(np.mean(fronts, axis=0))


def test_smallest_student_is_always_on_the_front_and_a_poor_one_never():
    costs = np.array([[10.0], [20.0], [30.0]])
    found = standings(_study(RNG, [0.5, 0.8, 0.6]), costs, _alone(80))
    assert found[0].stability == 1
    assert found[1].stability == 1
    assert found[2].stability == 0


def test_equally_good_students_of_one_size_share_the_front():
    costs = np.full((4, 1), 10.0)
    found = standings(_study(RNG, [0.7] * 4), costs, _alone(80))
    assert sum(one.stability for one in found) == pytest.approx(1)
    assert max(one.stability for one in found) < 0.95


def test_correction_removes_the_selection_bias():
    """The truth is known: every student's Dice is 0.7, and the best up to the largest size is chosen among all."""
    apparent, corrected = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        dice = _study(rng, [0.7] * 20)
        found = standings(dice, np.arange(20.0)[:, None], _alone(80), draws=400, seed=seed)
        apparent.append(max(one.mean() for one in dice))
        corrected.append(found[-1].corrected.dice)
    assert np.mean(apparent) > 0.72
    assert np.mean(corrected) == pytest.approx(0.7, abs=0.006)


@pytest.mark.parametrize(("students", "spread"), [(1, 0.0), (20, 0.0), (20, 0.02), (40, 0.03)])
def test_corrected_interval_covers_the_chosen_student_s_true_dice(students, spread):
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        true = 0.7 + spread * rng.normal(size=students)
        dice = _study(rng, true)
        found = standings(dice, np.arange(float(students))[:, None], _alone(80), draws=300, seed=seed)
        chosen = int(np.argmax([one.mean() for one in dice]))
        held += found[-1].corrected.low <= true[chosen] <= found[-1].corrected.high
    assert 0.91 <= held / 200 <= 0.99


def test_estimated_selection_bias_is_right_for_equal_students():
    """The truth is known: every student's Dice is 0.6."""
    found, true = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        dice = [0.6 + rng.normal(0, 0.2, 100) for _ in range(20)]
        found.append(selection_bias(dice, _alone(100), seed=seed))
        true.append(max(one.mean() for one in dice) - 0.6)
    assert np.mean(found) == pytest.approx(np.mean(true), rel=0.35)
    assert np.mean(true) > 0.03


def test_clear_winner_has_almost_no_selection_bias():
    dice = [0.5 + RNG.normal(0, 0.05, 100), 0.9 + RNG.normal(0, 0.05, 100)]
    assert abs(selection_bias(dice, _alone(100))) < 0.01
    assert selection_bias(dice[:1], _alone(100)) == 0.0
