"""Bootstrap over groups of images: means over drawn groups, and over groups that were not drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

Floats = npt.NDArray[np.float64]
Groups: TypeAlias = Sequence[str] | npt.NDArray[np.int_]
"""The group's name or number of each of N images."""

LEVEL = 0.95
"""Confidence level of all intervals."""
DRAWS = 2000
SEED = 0
AT_ONCE = 10_000_000
"""At most this many weights are in memory at a time (80 MB), for any number of groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """Mean Dice of M students on B draws of groups with replacement, and on the groups that were not drawn."""

    drawn: Floats
    """M×B."""
    left_out: Floats
    """M×B; draws of all groups are not among the B."""
    apparent: Floats
    """M: on all images."""


def resample(rows: Floats, groups: Sequence[str], *, draws: int = DRAWS, seed: int = SEED) -> Resampled | None:
    """Resamples M×N Dice coefficients of the same N images, NaN for negative images, by group.

    Returns None if fewer than two groups have a lesion.
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
    """Returns M×G sums over each group's lesion images, and the G numbers of these images."""
    lesion = ~np.isnan(rows).any(axis=0)
    _, places = np.unique(np.asarray(groups)[lesion], return_inverse=True)
    count = int(places.max(initial=-1)) + 1
    sums = np.array([np.bincount(places, weights=row[lesion], minlength=count) for row in rows])
    return sums, np.bincount(places, minlength=count).astype(np.float64)


def draw_means(sums: Floats, sizes: Floats, *, draws: int = DRAWS, seed: int = SEED, at_once: int = AT_ONCE) -> Floats:
    """Computes M×B means over images for B draws of the G groups with replacement, from ``sums_by_group``."""
    parts = [_means(sums, sizes, weights) for weights in _weights(sizes.size, draws=draws, seed=seed, at_once=at_once)]
    return np.concatenate(parts, axis=1)


def _means(sums: Floats, sizes: Floats, weights: Floats) -> Floats:
    return np.asarray((sums @ weights) / (sizes @ weights))


def _weights(groups: int, *, draws: int, seed: int, at_once: int = AT_ONCE) -> Iterator[Floats]:
    """Yields G×b counts of how often each draw takes each group, b draws at a time."""
    rng = np.random.default_rng(seed)
    most = max(1, at_once // groups)
    for start in range(0, draws, most):
        yield rng.multinomial(groups, np.full(groups, 1 / groups), size=min(most, draws - start)).T.astype(np.float64)


LEAST_ERROR = 1e-12
"""Lower limit of standard errors; below it, two students are equal on every image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean of paired differences of Dice, and its confidence interval."""

    mean: float
    half_width: float
    """The interval is mean ± half_width; all intervals of a comparison are simultaneous at 95 %."""

    def __str__(self) -> str:
        """Returns Dice points."""
        return f"{100 * self.mean:+z.1f} ± {100 * self.half_width:.1f}"

    @property
    def within_noise(self) -> bool:
        """Whether the interval includes zero."""
        return abs(self.mean) <= self.half_width


def simultaneous_differences(
    dice: Sequence[Floats], groups: Sequence[str], *, chosen: int, others: Sequence[int], seed: int = SEED
) -> list[Difference]:
    """Computes the differences ``dice[chosen] - dice[other]`` for each of ``others``.

    ``dice`` holds N coefficients on the same images, NaN for negative images, for each of the M students that
    could have been chosen. The intervals are simultaneous for all their pairs, like Tukey's, because the same
    images chose the student: groups of images are drawn with replacement, and one width follows from the
    largest deviation of any pair, in standard errors (max-t bootstrap, Romano and Wolf 2005). It is scaled to
    Student's t with G - 1 degrees of freedom for G groups. The intervals cover new images, but not training
    variance.
    """
    if not others:
        return []
    sums, sizes = sums_by_group(np.stack(dice), groups)
    if sizes.size < 2:
        means = sums.sum(axis=1) / max(1.0, float(sizes.sum()))
        return [Difference(mean=float(means[chosen] - means[other]), half_width=math.inf) for other in others]
    means = sums.sum(axis=1) / sizes.sum()
    errors = _errors(sums - means[:, None] * sizes, images=float(sizes.sum()))
    width = _width(draw_means(sums, sizes, seed=seed) - means[:, None], errors, groups=sizes.size)
    return [
        Difference(mean=float(means[chosen] - means[other]), half_width=width * float(errors[chosen, other]))
        for other in others
    ]


def _errors(residuals: Floats, *, images: float) -> Floats:
    """Computes M×M standard errors of the differences from M×G residuals of groups.

    Bootstrap errors would not do: the largest of many deviations would belong to a pair whose error is too small.
    """
    groups = residuals.shape[1]
    covariance = residuals @ residuals.T * groups / (groups - 1) / images**2
    variances = np.diag(covariance)
    apart = np.maximum(variances[:, None] + variances[None, :] - 2 * covariance, LEAST_ERROR**2)
    return np.asarray(np.sqrt(apart))


def _width(deviations: Floats, errors: Floats, *, groups: int) -> float:
    """Returns, in standard errors, the quantile of the largest deviation of any pair, scaled from a normal to a t.

    Corrects for the bootstrap's variance, which is too small by (G - 1) / G.
    """
    deviations = deviations * (groups / (groups - 1)) ** 0.5
    largest = np.zeros(deviations.shape[1])
    for place in range(len(deviations) - 1):
        apart = np.abs(deviations[place] - deviations[place + 1 :]) / errors[place, place + 1 :, None]
        np.maximum(largest, apart.max(axis=0), out=largest)
    return -float(stdtrit(groups - 1, ndtr(-np.quantile(largest, LEVEL))))
