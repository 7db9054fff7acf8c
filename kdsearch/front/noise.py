"""Whether students can be told apart by the images they were scored on, and how much choosing the best flatters it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
DRAWS = 2000
"""Of the bootstrap."""
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean of paired differences of Dice, and its confidence interval."""

    mean: float
    half_width: float
    """The interval is the mean ± this; all of a comparison hold together at 95 %."""

    def __str__(self) -> str:
        """In points of Dice."""
        return f"{100 * self.mean:+.1f} ± {100 * self.half_width:.1f}"

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
    sums, sizes = _by_group(rows, groups)
    if sizes.size < 2:
        return [Difference(mean=float(np.nanmean(row)) if sizes.size else 0.0, half_width=math.inf) for row in rows]
    means = sums.sum(axis=1) / sizes.sum()
    weights = _draws(sizes.size, seed)
    drawn = (sums @ weights) / (sizes @ weights)
    errors = np.maximum(drawn.std(axis=1, ddof=1), 1e-12)
    largest = np.abs((drawn - means[:, None]) / errors[:, None]).max(axis=0)
    width = float(np.quantile(largest, CONFIDENCE))
    return [
        Difference(mean=float(mean), half_width=width * float(error)) for mean, error in zip(means, errors, strict=True)
    ]


def flattery(dice: Sequence[Floats], groups: Sequence[str], *, seed: int = SEED) -> float:
    """By how much Dice the best of several students looks better than it is, because these images chose it.

    Each draw of groups chooses a best student, which is scored on the groups that were not drawn (bootstrap bias
    corrected, Tsamardinos et al. 2018). ``dice``: N coefficients for each student, NaN where there is no lesion.
    """
    sums, sizes = _by_group(np.stack(dice), groups)
    if sizes.size < 2 or len(dice) < 2:
        return 0.0
    weights = _draws(sizes.size, seed)
    best = (sums @ weights).argmax(axis=0)
    left = weights == 0
    left_sizes = sizes @ left
    scored = left_sizes > 0
    honest = (sums @ left)[best, np.arange(best.size)][scored] / left_sizes[scored]
    apparent = float((sums.sum(axis=1) / sizes.sum()).max())
    return apparent - float(honest.mean())


def _by_group(rows: Floats, groups: Sequence[str]) -> tuple[Floats, Floats]:
    """M×G sums over each group's images with a lesion, and G counts of those."""
    lesion = ~np.isnan(rows).any(axis=0)
    _, places = np.unique(np.asarray(groups)[lesion], return_inverse=True)
    members = np.eye(places.max(initial=-1) + 1)[places]
    return rows[:, lesion] @ members, members.sum(axis=0)


def _draws(groups: int, seed: int) -> Floats:
    """G×DRAWS: how often each draw takes each group."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=DRAWS).T.astype(np.float64)
