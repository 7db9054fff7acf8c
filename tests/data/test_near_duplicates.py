"""Clusters of near-duplicates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from kdsearch.data.gathering import clusters_of, hash_image, similar_pairs, thumbnail
from kdsearch.data.pixels import read_gray


def _clusters(images):
    return clusters_of(len(images), similar_pairs([hash_image(i) for i in images], [thumbnail(i) for i in images]))


def _picture(seed: int, *, width: int = 120) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((90, width)), 8)
    return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


def test_brighter_and_noisier_copies_join_their_original_and_others_do_not():
    rng = np.random.default_rng(0)
    original = _picture(1)
    brighter = np.clip(original.astype(int) + 12, 0, 255).astype(np.uint8)
    noisier = np.clip(original + rng.normal(0, 2, original.shape), 0, 255).astype(np.uint8)
    clusters = _clusters([original, _picture(2), brighter, _picture(3), noisier])
    assert clusters[0] == clusters[2] == clusters[4]
    assert len(set(clusters)) == 3


def test_shifted_copy_joins_its_original():
    wide = _picture(1, width=140)
    original, shifted, other = wide[:, :120], wide[:, 12:132], _picture(2)
    assert similar_pairs([hash_image(image) for image in (original, shifted)], [original[:64, :64]] * 2) == [(0, 1)]
    hashes = [hash_image(image) for image in (original, shifted, other)]
    assert np.count_nonzero(hashes[0] != hashes[1]) > 38, "or the hashes alone would do"
    assert _clusters([original, shifted, other]) == [0, 0, 1]


@pytest.mark.realdata
def test_pairs_that_the_hashes_miss_are_found_in_busi(real_data):
    names = ["benign (224)", "benign (304)", "benign (208)", "benign (291)", "normal (38)", "normal (53)"]
    names += ["malignant (3)", "malignant (4)", "benign (1)", "malignant (71)", "malignant (72)"]
    folder = next(path for path in (real_data / "busi").rglob("benign") if path.is_dir()).parent
    images = [read_gray(folder / name.split()[0] / f"{name}.png") for name in names]
    assert _clusters(images) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6]
