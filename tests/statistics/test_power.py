"""The power that is predicted equals the power of a paired t-test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kdsearch.statistics.comparisons import compare
from kdsearch.statistics.power import (
    MEMBER_AND_TWIN,
    PAIRED_STD,
    Noise,
    exceeds,
    least_difference,
    paired_rows,
    power_of_no_worse,
    power_of_pooled_effect,
    simulate,
)
from tests.benchmarks.comparisons import layout
from tests.benchmarks.components import components


@pytest.mark.parametrize(("images", "points"), [(98, 5.0), (550, 2.1), (67, 6.0)])
def test_least_difference_in_points(images, points):
    assert 100 * least_difference(images) == pytest.approx(points, abs=0.1)


def test_least_difference_is_infinite_without_images():
    assert least_difference(0) == math.inf


def test_least_difference_is_detected_with_80_percent_power():
    rng = np.random.default_rng(0)
    apart = least_difference(98) + PAIRED_STD * rng.normal(size=(2000, 98))
    found = stats.ttest_1samp(apart, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def _plan(*, images=550, repetitions=1, folds=5, pairs=4):
    return layout(np.random.default_rng(1), images=images, repetitions=repetitions, folds=folds, pairs=pairs)


def test_simulated_differences_have_the_given_variance_components():
    noise = Noise(image=0.1, on_image=0.05, run=0.03, trained_on=0.0, alike=0.5)
    plan, rng = _plan(images=3000, repetitions=2, pairs=2), np.random.default_rng(0)
    rows = np.stack([simulate(rng, plan, noise=noise, effect=0.02) for _ in range(20)])
    assert rows.mean() == pytest.approx(0.02, abs=0.005)
    persistent = [np.cov(one[0])[0, 1] for one in rows]
    assert np.mean(persistent) == pytest.approx(0.1**2, rel=0.1)
    common = [np.cov(one[0, 0], one[1, 1])[0, 1] for one in rows]
    assert np.mean(common) == pytest.approx(0.5 * 0.1**2, rel=0.15)
    means = [[one[0, 0, plan.folds[0] == fold].mean() for fold in range(5)] for one in rows]
    assert np.std(means) == pytest.approx(0.03, rel=0.2)


def test_power_grows_with_effect_repetitions_and_pairs():
    few = power_of_pooled_effect(_plan(), effect=0.01, studies=200)
    assert power_of_pooled_effect(_plan(), effect=0.02, studies=200) > few + 0.1
    assert power_of_pooled_effect(_plan(repetitions=3), effect=0.01, studies=200) > few + 0.1
    assert power_of_pooled_effect(_plan(pairs=1), effect=0.01, studies=200) < few


def test_absent_effect_is_rarely_detected():
    assert power_of_pooled_effect(_plan(), effect=0.0, studies=400) <= 0.025


def test_larger_margin_is_easier_to_show():
    assert power_of_no_worse(_plan(), margin=0.05, studies=200) > power_of_no_worse(_plan(), margin=0.02, studies=200)


def test_seeds_on_the_same_images_have_power_too():
    assert power_of_pooled_effect(_plan(images=97, repetitions=3, folds=1, pairs=1), effect=0.15, studies=100) > 0.9


def test_quick_rule_of_the_simulation_agrees_with_the_full_comparison():
    rng, plan, agree = np.random.default_rng(0), _plan(repetitions=3, pairs=1), 0
    for _ in range(30):
        pair = paired_rows(plan, simulate(rng, plan, noise=MEMBER_AND_TWIN, effect=0.012)[0])
        found = compare([pair], [str(group) for group in plan.groups])[0]
        agree += exceeds(pair, plan.groups, level=0.0) == (found.shown and found.mean > 0)
    assert agree >= 28


def test_measured_noise_equals_the_simulated_noise():
    """Measured by the script that determined the constants."""
    noise = Noise(image=0.1, on_image=0.15, run=0.03, trained_on=0.0, alike=0.0)
    plan, rng = _plan(images=2000, repetitions=2, pairs=1), np.random.default_rng(3)
    found = [components(simulate(rng, plan, noise=noise, effect=0.0)[0], plan.folds) for _ in range(10)]
    for name in ("image", "on_image", "run"):
        assert np.mean([one[name] for one in found]) == pytest.approx(getattr(noise, name), rel=0.15), name
