"""Planned comparisons over folds: p-values and intervals against references, and error rates of the verdicts."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from kdsearch.statistics.comparisons import (
    PairedDice,
    compare,
    compare_to_margin,
    holm,
    image_interval,
    levels,
    recipe_error,
)
from kdsearch.statistics.power import MEMBER_AND_TWIN, paired_rows, simulate
from tests.benchmarks.comparisons import ASSUMED, layout, shares


def _pair(mean, *, images=200, folds=5, std=0.1, seed=0):
    rows = mean + std * np.random.default_rng(seed).normal(size=images)
    by_fold = np.array([part.mean() for part in np.array_split(rows, folds)])
    return PairedDice(by_fold=by_fold, by_image=rows, test_to_train=1 / (folds - 1)), [str(n) for n in range(images)]


def test_fold_interval_uses_the_corrected_t_test():
    """Nadeau and Bengio: the variance of a mean of J is multiplied by 1/J + n_test/n_train, here 1/5 + 1/4."""
    by_fold = np.array([0.01, 0.03, 0.02, 0.05, -0.01])
    expected = scipy.stats.t.ppf(0.975, 4) * np.sqrt(by_fold.var(ddof=1) * (1 / 5 + 1 / 4))
    pair = PairedDice(by_fold=by_fold, by_image=by_fold, test_to_train=1 / 4)
    assert recipe_error(pair, list("abcde")).half_width(0.05) == pytest.approx(expected)


def test_seeds_on_the_same_images_add_the_variance_of_the_images():
    rows = np.random.default_rng(7).normal(0.02, 0.15, size=(3, 90))
    groups = [str(place // 2) for place in range(90)]
    pair = PairedDice(by_fold=rows.mean(axis=1), by_image=rows.mean(axis=0), test_to_train=1 / 5, same_images=True)
    clusters = rows.mean(axis=0).reshape(45, 2).mean(axis=1)
    images, runs = clusters.var(ddof=1) / 45, pair.by_fold.var(ddof=1) * (1 / 3 + 1 / 5)
    error = recipe_error(pair, groups)
    assert error.standard == pytest.approx(np.sqrt(images + runs))
    assert error.degrees == pytest.approx((images + runs) ** 2 / (images**2 / 44 + runs**2 / 2))
    found = compare([pair], groups)[0]
    assert found.high - found.mean == pytest.approx(scipy.stats.t.ppf(0.975, error.degrees) * error.standard)


def test_uncorrected_p_of_folds_equals_a_t_test():
    pair, groups = _pair(0.01)
    found = compare([PairedDice(by_fold=pair.by_fold, by_image=pair.by_image, test_to_train=0.0)], groups)[0]
    assert found.p_folds == pytest.approx(scipy.stats.ttest_1samp(pair.by_fold, 0).pvalue)


def test_p_by_folds_tests_the_mean_at_the_center_of_the_interval():
    """One fold is much smaller than the others: the mean over folds would be half the mean over images."""
    rows = np.concatenate([np.full(190, 0.05), np.full(10, -0.03)]) + np.random.default_rng(5).normal(0, 0.01, 200)
    by_fold = np.array([rows[:95].mean(), rows[95:190].mean(), rows[190:].mean()])
    pair = PairedDice(by_fold=by_fold, by_image=rows, test_to_train=0.25)
    found = compare([pair], [str(place) for place in range(200)])[0]
    error = np.sqrt(by_fold.var(ddof=1) * (1 / 3 + 0.25))
    assert found.p_folds == pytest.approx(2 * scipy.stats.t.sf(rows.mean() / error, 2))
    assert found.high - found.mean == pytest.approx(scipy.stats.t.ppf(0.975, 2) * error)


def test_identical_recipes_have_zero_difference():
    pair = PairedDice(by_fold=np.zeros(5), by_image=np.zeros(100), test_to_train=0.25)
    found = compare([pair], [str(place) for place in range(100)])[0]
    assert not found.shown
    assert str(found) == "+0.0 [+0.0, +0.0]"


def test_p_of_images_equals_a_sign_flip_permutation_test():
    pair, groups = _pair(0.015, images=60)
    found = compare([pair], groups)[0]
    reference = scipy.stats.permutation_test(
        (pair.by_image, np.zeros(60)), lambda a, b: np.mean(a - b), permutation_type="samples", rng=1
    )
    assert found.p_images == pytest.approx(reference.pvalue, abs=0.015)


def test_images_that_belong_together_flip_together():
    rows = np.repeat(np.random.default_rng(2).normal(0.03, 0.1, size=50), 4)
    pair = PairedDice(by_fold=rows[:5], by_image=rows, test_to_train=0.25)
    alone = compare([pair], [str(place) for place in range(200)])[0]
    together = compare([pair], [str(place // 4) for place in range(200)])[0]
    assert together.p_images > alone.p_images
    assert together.mean == alone.mean


def test_image_interval_equals_the_bootstrap_interval():
    rows = np.random.default_rng(3).normal(0.7, 0.2, size=300)
    low, high = image_interval(rows, [str(place) for place in range(300)], alpha=0.05)
    reference = scipy.stats.bootstrap((rows,), np.mean, method="percentile", rng=1).confidence_interval
    assert (low, high) == pytest.approx(tuple(reference), abs=0.003)


def test_negative_images_do_not_count():
    rows = np.array([0.1, np.nan, 0.3, np.nan, 0.2])
    groups = list("abcde")
    assert image_interval(rows, groups, alpha=0.05) == image_interval(rows[::2], groups[::2], alpha=0.05)


def test_holm_adjusts_from_the_smallest_up():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9]) == [0.9]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_each_interval_uses_the_level_of_its_holm_step():
    assert levels([0.04, 0.001, 0.03], 0.05) == pytest.approx([0.025, 0.05 / 3, 0.025]), "0.03 stops at 0.05 / 2"
    assert levels([0.04, 0.001, 0.02], 0.05) == pytest.approx([0.05, 0.05 / 3, 0.025])


def test_verdict_needs_both_folds_and_images():
    """Folds that all agree while the images are inconclusive, and the other way round."""
    groups = [str(place) for place in range(100)]
    noise = np.random.default_rng(4).normal(0, 0.2, size=100)
    noise += 0.005 - noise.mean()
    agreed = PairedDice(by_fold=np.full(5, 0.005), by_image=noise, test_to_train=0.25)
    scattered = PairedDice(
        by_fold=np.array([0.2, -0.2, 0.1, -0.05, 0.1]), by_image=np.full(100, 0.03), test_to_train=0.25
    )
    for pair in (agreed, scattered):
        found = compare([pair], groups)[0]
        assert min(found.p_folds, found.p_images) < 0.01
        assert not found.shown
        assert found.low < 0 < found.high


def test_more_comparisons_widen_intervals():
    pair, groups = _pair(0.05)
    alone, among = compare([pair], groups)[0], compare([pair, *[_pair(0.0, seed=n)[0] for n in range(1, 6)]], groups)[0]
    assert alone.mean == among.mean
    assert among.high - among.low > alone.high - alone.low
    assert among.p > alone.p


@pytest.mark.parametrize(("mean", "shown"), [(0.0, True), (-0.005, True), (-0.05, False)])
def test_difference_is_shown_to_be_within_the_margin(mean, shown):
    pair, groups = _pair(mean, images=2000)
    found = compare_to_margin([pair], groups, margin=0.02, in_order=True)[0]
    assert found.shown == shown
    assert (found.low > -0.02) == shown
    assert found.low < found.mean


def test_sequence_is_not_adjusted_and_ends_with_the_first_failure():
    groups = [str(place) for place in range(2000)]
    good, bad = _pair(0.0, images=2000)[0], _pair(-0.05, images=2000, seed=1)[0]
    alone = compare_to_margin([good], groups, margin=0.02, in_order=True)[0]
    first, second, third = compare_to_margin([good, bad, good], groups, margin=0.02, in_order=True)
    assert (first.p, first.low) == (alone.p, alone.low)
    assert (first.shown, second.shown, third.shown) == (True, False, False)
    assert (third.p, third.low) == (second.p, second.low)
    holm_adjusted = compare_to_margin([good, bad, good], groups, margin=0.02, in_order=False)
    assert [one.shown for one in holm_adjusted] == [True, False, True]
    assert holm_adjusted[0].low < alone.low


def test_single_fold_gives_no_verdict():
    pair = PairedDice(by_fold=np.array([0.3]), by_image=np.full(50, 0.3), test_to_train=1.0)
    found = compare([pair], [str(place) for place in range(50)])[0]
    assert not found.shown
    assert found.high == np.inf


def _one_pair(*, repetitions, effect, studies, images=300, folds=5):
    """The shares of simulated studies whose interval covers the true effect, and whose verdict is helps or hurts."""
    rng, found = np.random.default_rng(0), []
    for _ in range(studies):
        plan = layout(rng, images=images, repetitions=repetitions, folds=folds, pairs=1)
        pair = paired_rows(plan, simulate(rng, plan, noise=MEMBER_AND_TWIN, effect=effect)[0])
        one = compare([pair], [str(group) for group in plan.groups])[0]
        found.append((one.low <= effect <= one.high, one.shown and one.mean > 0, one.shown and one.mean < 0))
    return np.mean(found, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("repetitions", [1, 3])
def test_intervals_cover_the_truth_and_false_verdicts_are_rare(repetitions):
    """The true effect is known; 300 studies have a standard error of 1.3 points around 95 %."""
    holds, helps, hurts = _one_pair(repetitions=repetitions, effect=0.0, studies=300)
    assert holds >= 0.93
    assert helps + hurts <= 0.05
    holds, helps, _ = _one_pair(repetitions=repetitions, effect=0.06, studies=100)
    assert holds >= 0.92
    assert helps > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 10])
def test_interval_for_seeds_on_the_same_images_covers_with_few_and_many(seeds):
    holds, helps, hurts = _one_pair(repetitions=seeds, effect=0.0, studies=300, images=97, folds=1)
    assert holds >= 0.93
    assert helps + hurts <= 0.05


@pytest.mark.slow
def test_pooled_effect_is_detected_more_often_when_tested_first():
    found = shares(images=550, repetitions=1, effect=0.02, noise=ASSUMED, studies=50)
    assert found.helps > 1.8 * found.helps_in_one_family
