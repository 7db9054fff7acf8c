"""Outline scores, compared with DeepMind's surface-distance, then calculated by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kdsearch.measure.surface import compare_outlines


def _disc(row, column, radius):
    y, x = np.mgrid[:60, :80]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


CENTER = _disc(30, 40, 12)
STRIPES = _disc(30, 40, 30) & (np.mgrid[:60, :80][0] % 7 == 0)


@pytest.mark.parametrize(
    ("predicted", "target", "nsd_1", "nsd_2_5", "hd95"),
    [
        pytest.param(CENTER, CENTER, 1.0, 1.0, 0.0, id="same"),
        pytest.param(_disc(30, 43, 12), CENTER, 0.3337516690420355, 0.8118075163153831, 3.0, id="moved"),
        pytest.param(_disc(30, 40, 8), CENTER, 0.0, 0.0, 4.123105625617661, id="smaller"),
        pytest.param(
            _disc(20, 20, 6) | _disc(45, 60, 3), _disc(20, 20, 8), 0.19060978638629933, 0.8134781472514272,
            41.340053217188775, id="a speck too many",
        ),
        pytest.param(
            _disc(0, 0, 15), _disc(5, 3, 14), 0.558705194613975, 0.6549511213970638, 4.47213595499958,
            id="at the border",
        ),
        pytest.param(STRIPES, _disc(30, 40, 20), 0.20403655628648015, 0.326220776287202, 13.0, id="stripes"),
    ],
)  # fmt: skip
def test_outline_scores_agree_with_surface_distance(predicted, target, nsd_1, nsd_2_5, hd95):
    """Values of surface-distance 0.1, with ``np.Inf`` changed to ``np.inf``; both agreed on 300 random pairs."""
    for tolerance, nsd in ((1.0, nsd_1), (2.5, nsd_2_5)):
        found = compare_outlines(predicted, target, tolerance=tolerance)
        assert found.nsd == pytest.approx(nsd, abs=1e-12)
        assert found.hd95 == pytest.approx(hd95, abs=1e-12)


def test_missed_lesion_gets_the_largest_possible_distance():
    found = compare_outlines(np.zeros((30, 40), dtype=bool), _disc(15, 20, 5)[:30, :40], tolerance=2.0)
    assert found.nsd == 0
    assert found.hd95 == math.hypot(30, 40) == 50


def test_single_pixel_has_the_outline_of_four_corners():
    one = np.zeros((5, 5), dtype=bool)
    one[2, 2] = True
    moved = np.roll(one, 2, axis=1)
    assert compare_outlines(moved, one, tolerance=2.0).nsd == 1
    assert compare_outlines(moved, one, tolerance=0.5).nsd == 0
    assert compare_outlines(moved, one, tolerance=0.5).hd95 == 2
