"""Near-duplicate pictures, so that a picture and its double never stand on both sides of a split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import fft
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from kdsearch.data.pixels import Pixels

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

DIFFERENCE_BITS, HASH_BITS = 256, 320
MAX_DIFFERENCE_BITS = 30
"""Of the 256-bit difference hash. Between different images of BUSI 32 are the fewest; half of a JPEG's size, 16."""
MAX_PERCEPTUAL_BITS = 8
"""Of the 64-bit perceptual hash."""
MAX_BITS_IF_NAMED_ALIKE = 45, 12
"""The same where a file's name or group says so too: 2 % may be cut off at each side."""
ROWS = 1024
"""Images that are compared at once."""
THUMBNAIL = 64
"""Height and width in pixels of what is correlated."""
MAX_SHIFT = 8
"""Pixels of a thumbnail."""
LEAST_CORRELATION = 0.95
"""Of the overlap. On BUSI all 36 pairs above it that the hashes miss show one scan; below it others begin."""
WORTH_A_LOOK = 0.75
"""Of the circular correlation, which is fast."""


def hash_image(image: Pixels) -> Bools:
    """320 bits: the 256-bit difference hash and the 64-bit perceptual hash of an H×W grey image."""
    picture = Image.fromarray(image)
    bits = [imagehash.dhash(picture, hash_size=16).hash, imagehash.phash(picture, hash_size=8).hash]
    return np.concatenate([np.asarray(part, dtype=bool).ravel() for part in bits])


def thumbnail(image: Pixels) -> Pixels:
    """The image at 64×64."""
    return np.asarray(Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR))


def are_near(hashes: Bools, known: Bools, *, named_alike: bool = False) -> Bools:
    """N, true where one of N×320 hashes is near one of the known M×320: the picture is a copy of a known one."""
    if not len(known):
        return np.zeros(len(hashes), dtype=np.bool_)
    parts = (
        _near(hashes[start : start + ROWS], known, named_alike=named_alike) for start in range(0, len(hashes), ROWS)
    )
    return np.concatenate([part.any(axis=1) for part in parts])


def similar_pairs(hashes: Sequence[Bools], thumbnails: Sequence[Pixels]) -> list[tuple[int, int]]:
    """Positions of pairs that show one picture: both hashes are near, or thumbnails correlate after a small shift."""
    bits = np.stack(hashes)
    pairs = {(int(a), int(b)) for a, b in np.argwhere(np.triu(_near(bits, bits), k=1))}
    stack = np.stack(thumbnails).astype(np.float32)
    pairs |= {(a, b) for a, b, shift in _candidates(stack) if _correlation(stack[a], stack[b], shift)}
    return sorted(pairs)


def clusters_of(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of ``count`` positions the number of its cluster; those of a pair are in one."""
    edges = np.array([*pairs, *((index, index) for index in range(count))], dtype=np.int64).reshape(-1, 2)
    graph = csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    _, clusters = connected_components(graph, directed=False)
    return [int(number) for number in clusters]


def _near(a: Bools, b: Bools, *, named_alike: bool = False) -> Bools:
    """N×M, true where both hashes of N×320 and M×320 are near."""
    most = MAX_BITS_IF_NAMED_ALIKE if named_alike else (MAX_DIFFERENCE_BITS, MAX_PERCEPTUAL_BITS)
    differ = _distances(a[:, :DIFFERENCE_BITS], b[:, :DIFFERENCE_BITS]) <= most[0]
    return np.asarray(differ & (_distances(a[:, DIFFERENCE_BITS:], b[:, DIFFERENCE_BITS:]) <= most[1]))


def _distances(a: Bools, b: Bools) -> Floats:
    """N×M numbers of bits that differ; whole numbers, as float32 for the sake of speed."""
    ones, others = a.sum(axis=1, dtype=np.float32), b.sum(axis=1, dtype=np.float32)
    return np.asarray(ones[:, None] + others[None, :] - 2 * (a.astype(np.float32) @ b.T.astype(np.float32)))


def _candidates(stack: Floats) -> Iterable[tuple[int, int, tuple[int, int]]]:
    """Pairs whose circular cross-correlation is high at a small shift, and that shift downwards and to the right."""
    centred = stack - stack.mean(axis=(1, 2), keepdims=True)
    norms = np.sqrt(np.square(centred).sum(axis=(1, 2), keepdims=True))
    spectra = fft.rfft2(centred / np.maximum(norms, 1e-6))
    around = np.arange(-MAX_SHIFT, MAX_SHIFT + 1)
    for index in range(len(stack) - 1):
        correlations = fft.irfft2(spectra[index + 1 :] * np.conj(spectra[index]), s=stack.shape[1:])
        near = correlations[:, around][:, :, around].reshape(len(correlations), -1)
        for other in np.flatnonzero(near.max(axis=1) > WORTH_A_LOOK):
            down, right = np.unravel_index(near[other].argmax(), (len(around), len(around)))
            yield index, index + 1 + int(other), (int(around[down]), int(around[right]))


def _correlation(a: Floats, b: Floats, shift: tuple[int, int]) -> bool:
    """Whether the pictures' overlap correlates at the shift or one pixel beside it."""
    return any(
        _overlap(a, b, down, right) >= LEAST_CORRELATION
        for down in range(shift[0] - 1, shift[0] + 2)
        for right in range(shift[1] - 1, shift[1] + 2)
    )


def _overlap(a: Floats, b: Floats, down: int, right: int) -> float:
    """Normalised cross-correlation of where both are, b moved back by the shift."""
    height, width = a.shape[0] - abs(down), a.shape[1] - abs(right)
    p = a[max(0, -down) :][:height, max(0, -right) :][:, :width].ravel()
    q = b[max(0, down) :][:height, max(0, right) :][:, :width].ravel()
    p, q = p - p.mean(), q - q.mean()
    return float(p @ q / np.sqrt((p @ p) * (q @ q) + 1e-9))
