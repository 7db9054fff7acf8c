"""Planned comparisons of recipes over folds and repetitions: differences, intervals and tests."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from kdsearch.statistics.resampling import AT_ONCE, DRAWS, LEVEL, SEED, Floats, Groups, draw_means, sums_by_group

FLIPS = 9999
"""Number of sign flips in a permutation test."""
ALPHA = 1 - LEVEL
"""Error rate of a family of planned comparisons."""
LEAST_ERROR = 1e-12
"""Lower limit of the standard error, which keeps t finite if two recipes are equal on every image."""

Direction = Literal["two-sided", "greater"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDice:
    """Differences of Dice between two recipes on the same images in the same folds."""

    by_fold: Floats
    """J: the mean difference over the images of each fold of each repetition."""
    by_image: Floats
    """N: each image's difference, averaged over repetitions; NaN for a negative image."""
    test_to_train: float
    """Ratio of test images to training images in one fold, such as 1/4 for five folds."""
    same_images: bool = False
    """Whether each of the J is a seed scored on all images, instead of a fold."""


def pair_of(
    rows: Floats, folds: npt.NDArray[np.int_], *, test_to_train: float, same_images: bool = False
) -> PairedDice:
    """Makes paired differences from R×N differences (NaN: negative image or missing score) and each image's fold.

    If all repetitions have the same folds, as with sources, they are averaged first.
    """
    count = int(folds.max()) + 1
    by_image = mean_known(rows)
    if count > 1 and (folds == folds[0]).all():
        rows, folds = by_image[None], folds[:1]
    parts = [row[fold_of == fold] for row, fold_of in zip(rows, folds, strict=True) for fold in range(count)]
    return PairedDice(
        by_fold=np.array([float(np.nanmean(part)) for part in parts if not np.isnan(part).all()]),
        by_image=by_image,
        test_to_train=test_to_train,
        same_images=same_images and count == 1,
    )


def mean_known(values: Floats) -> Floats:
    """Averages over the first axis, ignoring NaN; NaN if all values are."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=0) / np.maximum(count, 1), math.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A planned comparison: mean difference, interval and adjusted p."""

    mean: float
    """Mean over images, averaged over repetitions."""
    low: float
    high: float
    """The ends of the wider of the two intervals, at the level of this comparison's step in Holm's procedure."""
    p_folds: float
    """From the t test over folds or seeds: the claim about recipes."""
    p_images: float
    """From the sign-flip permutation test over groups of images: the claim about these images."""
    p: float
    """The larger of both, adjusted for the planned comparisons (Holm)."""
    alpha: float = ALPHA
    """Error rate that the planned comparisons share."""

    @property
    def shown(self) -> bool:
        """Whether both claims are significant after adjustment."""
        return self.p <= self.alpha and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        """Returns Dice points."""
        return f"{100 * self.mean:+z.1f} [{100 * self.low:+z.1f}, {100 * self.high:+z.1f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotWorse:
    """A planned comparison: whether one recipe is worse than another by less than a margin."""

    mean: float
    low: float
    """Lower bound of the difference, adjusted for the planned comparisons."""
    p: float
    """P-value of the null hypothesis "worse by the margin or more", adjusted for the planned comparisons."""
    margin: float

    @property
    def shown(self) -> bool:
        """Whether the recipe is significantly within the margin after adjustment."""
        return self.p <= ALPHA / 2

    def __str__(self) -> str:
        """Returns Dice points."""
        return f"{100 * self.mean:+z.1f}, above {100 * self.low:+z.1f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Standard error of a mean difference between recipes, and its degrees of freedom."""

    standard: float
    degrees: float

    def half_width(self, alpha: float) -> float:
        """Returns half the width of the interval at level 1 - alpha."""
        return math.inf if self.degrees <= 0 else float(stdtrit(self.degrees, 1 - alpha / 2)) * self.standard


def compare(
    pairs: Sequence[PairedDice], groups: Sequence[str], *, alpha: float = ALPHA, seed: int = SEED
) -> list[Compared]:
    """Tests whether each difference is nonzero; ``alpha`` is the error rate of all comparisons together.

    The claim about recipes is tested by a t test over folds or seeds (``recipe_error``), the claim about these
    images by a bootstrap and a sign-flip permutation test over groups. A verdict requires both, so the larger p
    and the wider interval count. Holm (1979) adjusts p; each interval has the level of its step, so that it
    excludes zero if Holm rejects.
    """
    raw = [_p_values(pair, groups, direction="two-sided", seed=seed) for pair in pairs]
    larger = [max(p) for p in raw]
    found = []
    for pair, (p_folds, p_images), p, level in zip(pairs, raw, holm(larger), levels(larger, alpha), strict=True):
        around = recipe_error(pair, groups).half_width(level)
        low, high = image_interval(pair.by_image, groups, alpha=level, seed=seed)
        mean = float(np.nanmean(pair.by_image))
        found.append(
            Compared(
                mean=mean,
                low=min(low, mean - around),
                high=max(high, mean + around),
                p_folds=p_folds,
                p_images=p_images,
                p=p,
                alpha=alpha,
            )
        )
    return found


def compare_to_margin(
    pairs: Sequence[PairedDice], groups: Sequence[str], *, margin: float, in_order: bool, seed: int = SEED
) -> list[NotWorse]:
    """Tests whether each difference is above minus the margin; one-sided, with a total error rate of 2.5 %.

    Both claims of ``compare`` are required, here for the difference plus the margin. With ``in_order`` the
    pairs are a fixed sequence: each is tested at the full level until the first one fails, so p is the largest
    and the bound the lowest so far. Otherwise Holm adjusts p, and Bonferroni the bounds.
    """
    moved = [
        dataclasses.replace(pair, by_fold=pair.by_fold + margin, by_image=pair.by_image + margin) for pair in pairs
    ]
    larger = [max(_p_values(pair, groups, direction="greater", seed=seed)) for pair in moved]
    level = ALPHA if in_order else ALPHA / max(1, len(pairs))
    means = [float(np.nanmean(pair.by_image)) for pair in pairs]
    lows = [
        min(
            image_interval(pair.by_image, groups, alpha=level, seed=seed)[0],
            mean - recipe_error(pair, groups).half_width(level),
        )
        for pair, mean in zip(pairs, means, strict=True)
    ]
    adjusted = holm(larger)
    if in_order:
        adjusted, lows = list(accumulate(larger, max)), list(accumulate(lows, min))
    return [
        NotWorse(mean=mean, low=low, p=p, margin=margin) for mean, low, p in zip(means, lows, adjusted, strict=True)
    ]


def recipe_error(pair: PairedDice, groups: Groups) -> Error:
    """Computes the standard error of the mean difference with respect to other trainings.

    Over folds: √(s² · (1/J + n_test/n_train)) with J - 1 degrees of freedom (corrected resampled t, Nadeau and
    Bengio 2003). Over seeds that are scored on the same images, s² lacks the variance over images, so the
    cluster-robust variance over groups is added, with the degrees of freedom of Satterthwaite (1946).
    """
    degrees = pair.by_fold.size - 1
    if degrees < 1:
        return Error(standard=math.inf, degrees=0)
    runs = float(pair.by_fold.var(ddof=1)) * (1 / pair.by_fold.size + pair.test_to_train)
    if not pair.same_images:
        return Error(standard=max(math.sqrt(runs), LEAST_ERROR), degrees=degrees)
    images = image_error(pair.by_image, groups)
    if images.degrees <= 0:
        return images
    both = max(runs + images.standard**2, LEAST_ERROR**2)
    parts = max(runs**2 / degrees + images.standard**4 / images.degrees, LEAST_ERROR**4)
    return Error(standard=math.sqrt(both), degrees=both**2 / parts)


def image_error(by_image: Floats, groups: Groups) -> Error:
    """Computes the cluster-robust standard error of the mean over images, without NaN, with independent groups."""
    sums, sizes = sums_by_group(by_image[None], groups)
    if sizes.size < 2:
        return Error(standard=math.inf, degrees=0)
    residuals = sums[0] - sizes * (sums.sum() / sizes.sum())
    variance = float((residuals**2).sum()) * sizes.size / (sizes.size - 1) / float(sizes.sum()) ** 2
    return Error(standard=max(math.sqrt(variance), LEAST_ERROR), degrees=sizes.size - 1)


def image_interval(
    by_image: Floats, groups: Sequence[str], *, alpha: float, draws: int = DRAWS, seed: int = SEED
) -> tuple[float, float]:
    """Computes the bootstrap percentile interval of the mean over images, without NaN, resampling groups."""
    sums, sizes = sums_by_group(by_image[None], groups)
    if sizes.size < 2:
        return -math.inf, math.inf
    drawn = draw_means(sums, sizes, draws=draws, seed=seed)
    low, high = np.quantile(drawn[0], [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for multiple comparisons (Holm 1979), in the given order."""
    count, reached, adjusted = len(p_values), 0.0, [1.0] * len(p_values)
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        reached = max(reached, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = reached
    return adjusted


def levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """Returns the level of each p-value's step in Holm's procedure; all after the first failure have its level."""
    count, stopped, found = len(p_values), 0.0, [alpha] * len(p_values)
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        step = stopped or alpha / (count - rank)
        if p_values[place] > step:
            stopped = step
        found[place] = step
    return found


def _p_values(pair: PairedDice, groups: Sequence[str], *, direction: Direction, seed: int) -> tuple[float, float]:
    """Returns the p-values of the claims about recipes and about images."""
    return _p_of_recipes(pair, groups, direction), _p_of_images(pair.by_image, groups, direction, seed)


def _p_of_recipes(pair: PairedDice, groups: Sequence[str], direction: Direction) -> float:
    """Tests the mean over images, as in the interval, because folds may differ in size."""
    error = recipe_error(pair, groups)
    if error.degrees <= 0:
        return 1.0
    t = float(np.nanmean(pair.by_image)) / error.standard
    return float(stdtr(error.degrees, -t)) if direction == "greater" else 2 * float(stdtr(error.degrees, -abs(t)))


def _p_of_images(by_image: Floats, groups: Sequence[str], direction: Direction, seed: int) -> float:
    """Returns the fraction of sign flips of whole groups with a mean at least as large, including the observed one."""
    sums, _ = sums_by_group(by_image[None], groups)
    rng, observed = np.random.default_rng(seed), float(sums.sum())
    tolerance = 1e-12 * float(np.abs(sums).sum())
    most, as_large = max(1, AT_ONCE // max(1, sums.shape[1])), 0
    for start in range(0, FLIPS, most):
        signs = rng.integers(0, 2, size=(sums.shape[1], min(most, FLIPS - start)), dtype=np.int8)
        flipped = sums[0] @ (2.0 * signs - 1.0)
        beyond = np.abs(flipped) >= abs(observed) - tolerance
        as_large += int((beyond if direction == "two-sided" else flipped >= observed - tolerance).sum())
    return (1 + as_large) / (1 + FLIPS)
