"""Clusters of near-duplicate pictures, so that a picture and its double never stand on both sides of a split."""

from __future__ import annotations

from collections.abc import Sequence

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from kdsearch.data.pixels import Pixels

MAX_DIFFERENCE_BITS = 30
"""Of the 256-bit difference hash."""
MAX_PERCEPTUAL_BITS = 8
"""Of the 64-bit perceptual hash."""


def hash_image(image: Pixels) -> npt.NDArray[np.bool_]:
    """320 bits: the 256-bit difference hash and the 64-bit perceptual hash of an H×W grey image."""
    picture = Image.fromarray(image)
    bits = [imagehash.dhash(picture, hash_size=16).hash, imagehash.phash(picture, hash_size=8).hash]
    return np.concatenate([np.asarray(part, dtype=bool).ravel() for part in bits])


def cluster(hashes: Sequence[npt.NDArray[np.bool_]]) -> list[int]:
    """For each image the number of its cluster; images are joined where both hashes are near."""
    bits = np.stack(hashes).astype(np.int32)
    near = (_distances(bits[:, :256]) <= MAX_DIFFERENCE_BITS) & (_distances(bits[:, 256:]) <= MAX_PERCEPTUAL_BITS)
    _, clusters = connected_components(csr_array(near), directed=False)
    return [int(number) for number in clusters]


def _distances(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    ones = bits.sum(axis=1)
    distances: npt.NDArray[np.int32] = ones[:, None] + ones[None, :] - 2 * bits @ bits.T
    return distances
