"""The phantom behaves like ultrasound."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from kdsearch.data.phantom import SIZE, TISSUE_ATTENUATION, draw_anatomy, envelope, log_compress, simulate
from kdsearch.data.pixels import gray_of

EVEN = np.ones((SIZE, SIZE), dtype=np.float32)
LOSSLESS = np.zeros_like(EVEN)


def test_fully_developed_speckle_has_the_rayleigh_ratio():
    ratios = [_snr(envelope(EVEN, LOSSLESS, np.random.default_rng(seed))[20:-20, 20:-20]) for seed in range(8)]
    assert np.mean(ratios) == pytest.approx(1.91, abs=0.03)


def _snr(detected: np.ndarray) -> float:
    return float(detected.mean() / detected.std())


def test_speckle_widens_with_depth_below_the_focus():
    detected = np.mean(
        [_lateral_correlation(envelope(EVEN, LOSSLESS, np.random.default_rng(seed))) for seed in range(4)], axis=0
    )
    assert detected[150:].mean() > detected[30:60].mean() + 0.1


def _lateral_correlation(detected: np.ndarray) -> np.ndarray:
    centered = detected - detected.mean(axis=1, keepdims=True)
    return (centered[:, 2:] * centered[:, :-2]).mean(axis=1) / centered.var(axis=1)


@pytest.mark.parametrize(("inside", "brighter"), [(4 * TISSUE_ATTENUATION, False), (-4 * TISSUE_ATTENUATION, True)])
def test_attenuation_shadows_and_its_lack_enhances(inside, brighter):
    attenuation = np.full_like(EVEN, TISSUE_ATTENUATION)
    attenuation[60:100, 80:110] = inside
    detected = envelope(EVEN, attenuation, np.random.default_rng(0))
    behind, beside = detected[110:, 85:105].mean(), detected[110:, 20:60].mean()
    assert (behind > 1.1 * beside) if brighter else (behind < 0.9 * beside)


def test_darker_scatterers_give_the_contrast_they_should():
    echo = EVEN.copy()
    echo[:, 96:] = 10 ** (-10 / 20)
    detected = envelope(echo, LOSSLESS, np.random.default_rng(0))
    ratio = 20 * np.log10(detected[:, 110:].mean() / detected[:, :82].mean())
    assert ratio == pytest.approx(-10, abs=0.7)


def test_log_compression_covers_its_dynamic_range():
    ramp = np.tile(np.logspace(-3, 0, 200, dtype=np.float32), (200, 1))
    gray = log_compress(ramp, gain_db=0.0, noise_db=-200.0, rng=np.random.default_rng(0))
    assert gray.min() == 0
    assert gray.max() == 255
    slope = np.diff(gray[0].astype(float))[80:180].mean()
    assert slope == pytest.approx(255 / 55 * 60 / 199, rel=0.05)


def test_same_number_is_the_same_image_and_another_is_not():
    a, b, other = simulate(3, seed=1), simulate(3, seed=1), simulate(4, seed=1)
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.mask, b.mask)
    assert not np.array_equal(a.image, other.image)
    assert not np.array_equal(a.image, simulate(3, seed=2).image)


def test_lesions_have_the_shape_of_their_kind():
    shapes = {"benign": [], "malignant": []}
    for label, found in shapes.items():
        for seed in range(30):
            rows, columns = np.nonzero(draw_anatomy(label, np.random.default_rng(seed)).lesion)
            found.append(np.ptp(columns) / np.ptp(rows))
    assert np.median(shapes["benign"]) > 1.2
    assert np.median(shapes["malignant"]) < 1.0


def test_labels_come_in_their_shares_and_normal_images_have_no_lesion():
    phantoms = [simulate(index, seed=0) for index in range(120)]
    labels = [phantom.label for phantom in phantoms]
    assert labels.count("benign") > labels.count("malignant") > labels.count("normal") > 3
    assert all(phantom.mask.any() == (phantom.label != "normal") for phantom in phantoms)


def test_contrast_ranges_from_clearly_dark_to_nearly_the_tissue_s_own():
    contrasts = []
    for index in range(60):
        phantom = simulate(index, seed=0)
        if phantom.label != "normal":
            contrasts.append(float(phantom.image[phantom.mask > 0].mean() - phantom.image[phantom.mask == 0].mean()))
    assert min(contrasts) < -50
    assert max(contrasts) > -15


def test_three_classes_add_cysts_and_change_nothing_else():
    pairs = [(simulate(index, seed=1), simulate(index, seed=1, classes=3)) for index in range(20)]
    for two, three in pairs:
        assert np.array_equal(two.image, three.image)
        assert np.array_equal(two.mask == 1, three.mask == 1)
        assert set(np.unique(two.mask)) <= {0, 1}
    assert any((three.mask == 2).any() for _, three in pairs)


def test_only_the_color_shows_a_lesion_in_colored_images():
    lightness, redness = [], []
    for index in range(30):
        phantom = simulate(index, seed=2, classes=3, colored=True)
        gray, red = gray_of(phantom.image).astype(float), phantom.image[..., 0].astype(float)
        for number, sign in ((1, 1), (2, -1)):
            inside = phantom.mask == number
            if inside.any():
                around = ndimage.binary_dilation(inside, iterations=10) & (phantom.mask == 0)
                lightness.append(gray[inside].mean() - gray[around].mean())
                redness.append(sign * ((red - gray)[inside].mean() - (red - gray)[around].mean()))
    assert abs(np.mean(lightness)) < 2
    assert np.mean(redness) > 30
