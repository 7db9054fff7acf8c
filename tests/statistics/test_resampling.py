"""Resampling groups of images, and the memory that this takes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from kdsearch.statistics.comparisons import PairedDice, compare
from kdsearch.statistics.resampling import draw_means, resample, sums_by_group

MANY = 12_000


def test_sums_and_sizes_are_computed_per_group():
    rows = np.array([[0.1, 0.2, np.nan, 0.4], [0.5, 0.6, np.nan, 0.8]])
    sums, sizes = sums_by_group(rows, ["b", "a", "a", "b"])
    assert sums == pytest.approx(np.array([[0.2, 0.5], [0.6, 1.3]]))
    assert sizes.tolist() == [1, 2]


def test_group_means_use_the_same_draws_as_resample():
    rows = np.random.default_rng(0).uniform(size=(3, 50))
    groups = [str(place // 2) for place in range(50)]
    assert draw_means(*sums_by_group(rows, groups), draws=40) == pytest.approx(resample(rows, groups, draws=40).drawn)


@pytest.mark.parametrize("groups", [2, 7, 400])
def test_drawing_in_parts_gives_the_same_means(groups):
    rows = np.random.default_rng(1).uniform(size=(2, 400))
    names = [str(place % groups) for place in range(400)]
    whole = draw_means(*sums_by_group(rows, names), draws=100)
    parts = draw_means(*sums_by_group(rows, names), draws=100, at_once=3 * groups)
    assert parts == pytest.approx(whole, rel=1e-12)


def test_memory_does_not_grow_with_the_square_of_the_groups():
    rows = np.random.default_rng(2).uniform(size=(2, MANY))
    names = [str(place) for place in range(MANY)]
    pair = PairedDice(by_fold=rows[0, :5], by_image=rows[0] - rows[1], test_to_train=0.25)
    tracemalloc.start()
    resample(rows, names, draws=50)
    compare([pair], names)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400e6, "a square matrix would take 1.15 GB, the signs of all flips 1 GB"
