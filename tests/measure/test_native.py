"""Scores at original resolution."""

from __future__ import annotations

import numpy as np
import pytest

from kdsearch.config.data import DataConfig
from kdsearch.data.frame import Frame
from kdsearch.data.native import NativeMask, native_images, native_masks
from kdsearch.measure.surface import measure_native


def _mask(lesion, tolerance=1.0):
    return NativeMask.of(lesion.astype(np.uint8), tolerance_px=tolerance)


SMALL = Frame(height=10, width=10)


LESION = np.zeros((30, 50), dtype=bool)
LESION[10:20, 20:40] = True


def test_unpacked_mask_equals_the_packed_one():
    assert np.array_equal(_mask(LESION).classes, LESION)


def test_logits_are_resized_before_thresholding():
    small = np.full((10, 10), -1.0, dtype=np.float32)
    small[:, 5:] = 1.0
    right = np.zeros((30, 50), dtype=bool)
    right[:, 25:] = True
    found = measure_native([small[None]], [_mask(right)], SMALL)
    assert found.dice == (1.0,)
    assert found.nsd == (1.0,)
    assert found.hd95 == (0.0,)


def test_missed_and_absent_lesions_are_distinguished():
    nothing = np.full((10, 10), -1.0, dtype=np.float32)
    found = measure_native([nothing[None]] * 2, [_mask(LESION), _mask(np.zeros_like(LESION))], SMALL)
    assert (found.dice[0], found.nsd[0], found.hd95[0]) == (0.0, 0.0, 1.0)
    assert np.isnan([found.dice[1], found.nsd[1], found.hd95[1]]).all()
    assert found.missed == 1


@pytest.mark.realdata
def test_tolerance_follows_the_pixel_spacing_if_it_is_known(real_data):
    def tolerance(**given):
        source = {"reader": "breast", "folder": str(real_data / "breast"), **given}
        config = DataConfig.model_validate({"sources": (source,), "tolerance_mm": 2.0})
        (image,) = native_images(config, ["breast/case001"])
        (mask,) = native_masks(config, ["breast/case001"]).values()
        assert np.array_equal(mask.classes, image.mask)
        return mask.tolerance_px, np.hypot(*image.mask.shape)

    assert tolerance(spacing_mm=0.25)[0] == 8
    pixels, diagonal = tolerance()
    assert pixels == pytest.approx(0.01 * diagonal)
