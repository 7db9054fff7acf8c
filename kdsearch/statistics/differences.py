"""Which students differ from a chosen one, by more than the images' noise and the choice explain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from kdsearch.statistics.resampling import LEVEL, SEED, Floats, draw_means, sums_by_group

LEAST_ERROR = 1e-12
"""Standard error below which two students are the same on every image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean of paired differences of Dice, and its confidence interval."""

    mean: float
    half_width: float
    """The interval is the mean ± this; all intervals of a comparison hold together at 95 %."""

    def __str__(self) -> str:
        """In points of Dice."""
        return f"{100 * self.mean:+z.1f} ± {100 * self.half_width:.1f}"

    @property
    def within_noise(self) -> bool:
        """Whether the interval includes zero."""
        return abs(self.mean) <= self.half_width


def simultaneous_differences(
    dice: Sequence[Floats], groups: Sequence[str], *, chosen: int, others: Sequence[int], seed: int = SEED
) -> list[Difference]:
    """The differences ``dice[chosen] - dice[other]`` for each of ``others``.

    ``dice`` holds N coefficients on the same images for each of M students, NaN for an image without a lesion: all
    students that could have been chosen, whichever of them are compared. The intervals hold together for all pairs of
    them, as Tukey's do, because the same images chose the student: groups of images are drawn with replacement, and
    one width is taken from the largest deviation of any pair, in standard errors (max-t bootstrap, Romano and Wolf
    2005). The width is that of Student's t with one degree of freedom per group but one. The intervals cover other
    images, not other trainings.
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
    """M×M standard errors of the differences, from M×G residuals of groups.

    They are computed, not drawn: the largest of many pairs would be one whose drawn error is too small.
    """
    groups = residuals.shape[1]
    covariance = residuals @ residuals.T * groups / (groups - 1) / images**2
    variances = np.diag(covariance)
    apart = np.maximum(variances[:, None] + variances[None, :] - 2 * covariance, LEAST_ERROR**2)
    return np.asarray(np.sqrt(apart))


def _width(deviations: Floats, errors: Floats, *, groups: int) -> float:
    """In standard errors: the quantile of the largest deviation of any pair, stretched from a normal to a t.

    A bootstrap's variance is too small by (G - 1) / G.
    """
    deviations = deviations * (groups / (groups - 1)) ** 0.5
    largest = np.zeros(deviations.shape[1])
    for place in range(len(deviations) - 1):
        apart = np.abs(deviations[place] - deviations[place + 1 :]) / errors[place, place + 1 :, None]
        np.maximum(largest, apart.max(axis=0), out=largest)
    return -float(stdtrit(groups - 1, ndtr(-np.quantile(largest, LEVEL))))
