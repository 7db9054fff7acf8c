"""What is said beforehand is what a paired t-test then finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kdsearch.statistics.power import PAIRED_STD, least_difference


@pytest.mark.parametrize(("images", "points"), [(98, 5.0), (550, 2.1), (67, 6.0)])
def test_least_difference_in_points(images, points):
    assert 100 * least_difference(images) == pytest.approx(points, abs=0.1)


def test_no_images_show_nothing():
    assert least_difference(0) == math.inf


def test_that_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(0)
    apart = least_difference(98) + PAIRED_STD * rng.normal(size=(2000, 98))
    found = stats.ttest_1samp(apart, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)
