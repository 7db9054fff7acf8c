"""Bootstrap over groups of images: means of the drawn groups, and of those that a draw leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Groups: TypeAlias = Sequence[str] | npt.NDArray[np.int_]
"""N names or numbers, equal for images that belong together."""

LEVEL = 0.95
"""Confidence level of all intervals."""
DRAWS = 2000
SEED = 0
AT_ONCE = 10_000_000
"""Most weights held in memory at a time (80 MB), whatever the number of groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """Mean Dice of M students on B draws of groups with replacement, and on the groups that a draw left out."""

    drawn: Floats
    """M×B."""
    left_out: Floats
    """M×B; draws that left nothing out are not among the B."""
    apparent: Floats
    """M: on all images."""


def resample(rows: Floats, groups: Sequence[str], *, draws: int = DRAWS, seed: int = SEED) -> Resampled | None:
    """Resamples M×N Dice coefficients of the same N images, NaN for an image without a lesion, by group.

    Returns None if fewer than two groups hold a lesion: other images cannot be imitated then.
    """
    sums, sizes = sums_by_group(rows, groups)
    if sizes.size < 2:
        return None
    drawn, left_out = [], []
    for weights in _weights(sizes.size, draws=draws, seed=seed):
        left = (weights == 0).astype(np.float64)
        some = (sizes @ left) > 0
        drawn.append(_means(sums, sizes, weights[:, some]))
        left_out.append(_means(sums, sizes, left[:, some]))
    return Resampled(
        drawn=np.concatenate(drawn, axis=1),
        left_out=np.concatenate(left_out, axis=1),
        apparent=sums.sum(axis=1) / sizes.sum(),
    )


def sums_by_group(rows: Floats, groups: Groups) -> tuple[Floats, Floats]:
    """M×G sums over each group's images with a lesion, and the G numbers of those images."""
    lesion = ~np.isnan(rows).any(axis=0)
    _, places = np.unique(np.asarray(groups)[lesion], return_inverse=True)
    count = int(places.max(initial=-1)) + 1
    sums = np.array([np.bincount(places, weights=row[lesion], minlength=count) for row in rows])
    return sums, np.bincount(places, minlength=count).astype(np.float64)


def draw_means(sums: Floats, sizes: Floats, *, draws: int = DRAWS, seed: int = SEED, at_once: int = AT_ONCE) -> Floats:
    """M×B means over images on B draws of the G groups with replacement, from ``sums_by_group``."""
    parts = [_means(sums, sizes, weights) for weights in _weights(sizes.size, draws=draws, seed=seed, at_once=at_once)]
    return np.concatenate(parts, axis=1)


def _means(sums: Floats, sizes: Floats, weights: Floats) -> Floats:
    return np.asarray((sums @ weights) / (sizes @ weights))


def _weights(groups: int, *, draws: int, seed: int, at_once: int = AT_ONCE) -> Iterator[Floats]:
    """G×b: how often each draw takes each group, some draws at a time."""
    rng = np.random.default_rng(seed)
    most = max(1, at_once // groups)
    for start in range(0, draws, most):
        yield rng.multinomial(groups, np.full(groups, 1 / groups), size=min(most, draws - start)).T.astype(np.float64)
