"""Simultaneous intervals over groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kdsearch.statistics.resampling import Difference, simultaneous_differences

RNG = np.random.default_rng(0)


def _alone(count):
    return [str(index) for index in range(count)]


def _behind(chosen, others, groups):
    return simultaneous_differences([chosen, *others], groups, chosen=0, others=range(1, 1 + len(others)))


def test_single_comparison_agrees_with_a_paired_t_test():
    a, b = RNG.uniform(size=200), RNG.uniform(size=200)
    (found,) = _behind(a, [b], _alone(200))
    known = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.mean == pytest.approx((a - b).mean())
    assert found.half_width == pytest.approx((known.high - known.low) / 2, rel=0.08)


def test_independent_students_get_tukey_s_intervals():
    """Students without a shared image difficulty are the groups of a one-way analysis of variance."""
    dice = RNG.normal(size=(8, 400))
    found = _behind(dice[0], list(dice[1:]), _alone(400))
    tukey = stats.tukey_hsd(*dice).confidence_interval(0.95)
    assert found[0].half_width == pytest.approx((tukey.high - tukey.low)[0, 1] / 2, rel=0.06)


def test_images_that_belong_together_make_intervals_wider():
    shared = np.repeat(RNG.normal(size=30), 4)
    (clustered,) = _behind(np.zeros(120), [shared], [str(index // 4) for index in range(120)])
    (ignored,) = _behind(np.zeros(120), [shared], _alone(120))
    assert clustered.half_width == pytest.approx(2 * ignored.half_width, rel=0.2)


def test_students_that_are_not_compared_widen_the_intervals_too():
    """The other students could have been chosen too."""
    noise = list(RNG.normal(size=(20, 120)))
    few = simultaneous_differences(noise[:2], _alone(120), chosen=0, others=[1])
    many = simultaneous_differences(noise, _alone(120), chosen=0, others=[1])
    assert few[0].mean == many[0].mean
    assert 1.5 < many[0].half_width / few[0].half_width < 2.2


def _differ_from_the_best(students, *, seed):
    """Whether any of equal students seems to differ from the one with the highest Dice on 97 images."""
    rng = np.random.default_rng([students, seed])
    image = rng.normal(0, 0.24 * 0.7**0.5, 97)
    dice = [0.7 + image + rng.normal(0, 0.24 * 0.3**0.5, 97) for _ in range(students)]
    best = int(np.argmax([one.mean() for one in dice]))
    others = [place for place in range(students) if place != best]
    found = simultaneous_differences(dice, _alone(97), chosen=best, others=others)
    return any(not one.within_noise for one in found)


def test_best_of_equal_students_seldom_seems_to_differ():
    assert sum(_differ_from_the_best(12, seed=seed) for seed in range(60)) <= 6, "14 with one fixed student's intervals"


@pytest.mark.slow
@pytest.mark.parametrize("students", [6, 12, 20, 40])
def test_best_of_equal_students_seems_to_differ_in_at_most_6_percent_of_studies(students):
    assert np.mean([_differ_from_the_best(students, seed=seed) for seed in range(1000)]) <= 0.06


def test_negative_images_do_not_count():
    a, b = np.array([0.5, math.nan, 0.7, 0.9]), np.array([0.4, math.nan, 0.5, 0.6])
    (found,) = _behind(a, [b], _alone(4))
    assert found.mean == pytest.approx(0.2)


def test_single_image_gives_an_infinite_interval():
    (found,) = _behind(np.array([0.5]), [np.array([0.1])], ["a"])
    assert found.within_noise
    assert found.half_width == math.inf
    assert _behind(np.array([0.5]), [], ["a"]) == []


def test_difference_is_shown_in_points():
    assert str(Difference(mean=0.013, half_width=0.02)) == "+1.3 ± 2.0"
    assert Difference(mean=0.013, half_width=0.02).within_noise
    assert not Difference(mean=-0.03, half_width=0.02).within_noise
