"""Clusters of near-duplicates."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from kdsearch.data.near_duplicates import cluster, hash_image


def _picture(seed: int) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((90, 120)), 8)
    return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


def test_brighter_and_noisier_copies_join_their_original_and_others_do_not():
    rng = np.random.default_rng(0)
    original = _picture(1)
    brighter = np.clip(original.astype(int) + 12, 0, 255).astype(np.uint8)
    noisier = np.clip(original + rng.normal(0, 2, original.shape), 0, 255).astype(np.uint8)
    clusters = cluster([hash_image(image) for image in (original, _picture(2), brighter, _picture(3), noisier)])
    assert clusters[0] == clusters[2] == clusters[4]
    assert len(set(clusters)) == 3
