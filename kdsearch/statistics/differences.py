"""Whether students can be told apart by the images they were scored on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdsearch.statistics.resampling import LEVEL, SEED, Floats, draw_weights, sums_by_group


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean of paired differences of Dice, and its confidence interval."""

    mean: float
    half_width: float
    """The interval is the mean ± this; all of a comparison hold together at 95 %."""

    def __str__(self) -> str:
        """In points of Dice."""
        return f"{100 * self.mean:+z.1f} ± {100 * self.half_width:.1f}"

    @property
    def within_noise(self) -> bool:
        """Whether zero lies in the interval."""
        return abs(self.mean) <= self.half_width


def simultaneous_differences(
    chosen: Floats, others: Sequence[Floats], groups: Sequence[str], *, seed: int = SEED
) -> list[Difference]:
    """The differences ``chosen`` - other, each of N Dice coefficients of the same images; NaN where there is no lesion.

    Intervals by the max-t bootstrap over groups of images (Romano and Wolf 2005): groups are drawn with replacement,
    and the largest of all students' deviations, in standard errors, gives one width for all. They say how other images
    would move the differences, not how other trainings would.
    """
    if not others:
        return []
    rows = chosen - np.stack(others)
    sums, sizes = sums_by_group(rows, groups)
    if sizes.size < 2:
        return [Difference(mean=float(np.nanmean(row)) if sizes.size else 0.0, half_width=math.inf) for row in rows]
    means = sums.sum(axis=1) / sizes.sum()
    weights = draw_weights(sizes.size, seed=seed)
    drawn = (sums @ weights) / (sizes @ weights)
    errors = np.maximum(drawn.std(axis=1, ddof=1), 1e-12)
    largest = np.abs((drawn - means[:, None]) / errors[:, None]).max(axis=0)
    width = float(np.quantile(largest, LEVEL))
    return [
        Difference(mean=float(mean), half_width=width * float(error)) for mean, error in zip(means, errors, strict=True)
    ]
