"""Telling two students apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kdsearch.front.noise import paired_difference


def test_interval_is_that_of_scipys_paired_test():
    random = np.random.default_rng(0)
    a, b = random.random(40), random.random(40)
    found = paired_difference(a, b)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.mean - found.half_width == pytest.approx(interval.low)
    assert found.mean + found.half_width == pytest.approx(interval.high)


def test_small_but_steady_difference_is_told_and_a_wild_one_is_not():
    base = np.linspace(0.1, 0.9, 50)
    assert not paired_difference(base + 0.01 + 0.001 * np.sin(np.arange(50)), base).within_noise
    assert paired_difference(base[::-1] + 0.01, base).within_noise


def test_images_without_a_lesion_do_not_count():
    with_gap = paired_difference(np.array([0.5, np.nan, 0.7]), np.array([0.4, 0.9, 0.5]))
    assert with_gap == paired_difference(np.array([0.5, 0.7]), np.array([0.4, 0.5]))


def test_one_image_tells_nothing():
    assert paired_difference(np.array([0.9]), np.array([0.1])).within_noise
