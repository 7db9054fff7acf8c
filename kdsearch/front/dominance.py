"""Which points no other point beats."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def non_dominated(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """N, true for rows of N×M losses (smaller is better) that no row dominates; equal rows keep each other company.

    A row dominates another where it is nowhere larger and somewhere smaller.
    """
    keep = np.ones(len(losses), dtype=bool)
    for index, row in enumerate(losses):
        nowhere_larger = (losses <= row).all(axis=1)
        somewhere_smaller = (losses < row).any(axis=1)
        keep[index] = not (nowhere_larger & somewhere_smaller).any()
    return keep
