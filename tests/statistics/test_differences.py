"""Intervals that hold together, over groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kdsearch.statistics.differences import Difference, simultaneous_differences

RNG = np.random.default_rng(0)


def _alone(count):
    return [str(index) for index in range(count)]


def test_one_comparison_of_single_images_is_near_student_s_t():
    a, b = RNG.uniform(size=200), RNG.uniform(size=200)
    (found,) = simultaneous_differences(a, [b], _alone(200))
    known = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.mean == pytest.approx((a - b).mean())
    assert found.half_width == pytest.approx((known.high - known.low) / 2, rel=0.08)


def test_more_comparisons_and_larger_groups_make_intervals_wider():
    noise = RNG.normal(size=(20, 120))
    (alone,) = simultaneous_differences(np.zeros(120), [noise[0]], _alone(120))
    together = simultaneous_differences(np.zeros(120), list(noise), _alone(120))
    assert 1.3 < together[0].half_width / alone.half_width < 1.8, "about 3.0 standard errors instead of 1.96"
    shared = np.repeat(RNG.normal(size=30), 4)
    groups = [str(index // 4) for index in range(120)]
    (clustered,) = simultaneous_differences(np.zeros(120), [shared], groups)
    (ignored,) = simultaneous_differences(np.zeros(120), [shared], _alone(120))
    assert clustered.half_width == pytest.approx(2 * ignored.half_width, rel=0.2)


def test_equal_students_are_all_within_the_noise_in_nineteen_of_twenty_studies():
    told_apart = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        image = rng.normal(0.6, 0.25, 80)
        dice = [image + rng.normal(0, 0.1, 80) for _ in range(8)]
        found = simultaneous_differences(dice[0], dice[1:], _alone(80), seed=seed)
        told_apart += any(not one.within_noise for one in found)
    assert told_apart <= 12


def test_images_without_a_lesion_do_not_count():
    a, b = np.array([0.5, math.nan, 0.7, 0.9]), np.array([0.4, math.nan, 0.5, 0.6])
    (found,) = simultaneous_differences(a, [b], _alone(4))
    assert found.mean == pytest.approx(0.2)


def test_one_image_says_nothing():
    (found,) = simultaneous_differences(np.array([0.5]), [np.array([0.1])], ["a"])
    assert found.within_noise
    assert found.half_width == math.inf
    assert simultaneous_differences(np.array([0.5]), [], ["a"]) == []


def test_difference_is_told_in_points():
    assert str(Difference(mean=0.013, half_width=0.02)) == "+1.3 ± 2.0"
    assert Difference(mean=0.013, half_width=0.02).within_noise
    assert not Difference(mean=-0.03, half_width=0.02).within_noise
