"""Planned comparisons of recipes over folds and repetitions: what differs, how surely, and what is not shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from kdsearch.statistics.resampling import DRAWS, LEVEL, SEED, Floats, draw_weights, sums_by_group

FLIPS = 9999
"""Draws of signs in a permutation test."""

Direction = Literal["two-sided", "greater"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDice:
    """What two recipes gave on the same images in the same folds, as differences of Dice."""

    by_fold: Floats
    """J: the mean difference over the images of each fold of each repetition."""
    by_image: Floats
    """N: each image's difference, averaged over repetitions; NaN where there is no lesion."""
    test_to_train: float
    """Images that score over images that train in one fold, such as 1/4 where there are five folds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A planned comparison: mean difference, interval and adjusted p."""

    mean: float
    """Over images, averaged over repetitions."""
    low: float
    high: float
    """The wider of the two intervals, at the level that the other planned comparisons leave."""
    p_folds: float
    """Of the corrected t over folds: the claim about recipes."""
    p_images: float
    """Of the sign-flip permutation over groups of images: the claim about these images."""
    p: float
    """The larger of both, adjusted for the planned comparisons (Holm)."""

    @property
    def shown(self) -> bool:
        """Whether both claims hold, beside all others that are planned."""
        return self.p <= 1 - LEVEL and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        """In points of Dice."""
        return f"{100 * self.mean:+z.1f} [{100 * self.low:+z.1f}, {100 * self.high:+z.1f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotWorse:
    """A planned comparison: whether one recipe is worse than another by less than a margin."""

    mean: float
    low: float
    """What the difference is above; all planned comparisons' bounds hold together (Bonferroni)."""
    p: float
    """Of a difference at or below minus the margin; adjusted for the planned comparisons (Holm)."""
    margin: float

    @property
    def shown(self) -> bool:
        """Whether it is no worse by more than the margin, beside all others that are planned."""
        return self.p <= (1 - LEVEL) / 2

    def __str__(self) -> str:
        """In points of Dice."""
        return f"{100 * self.mean:+z.1f}, above {100 * self.low:+z.1f}"


def compare(pairs: Sequence[PairedDice], groups: Sequence[str], *, seed: int = SEED) -> list[Compared]:
    """Whether each difference is other than zero, all of them planned together.

    The claim about recipes rests on the corrected resampled t (Nadeau and Bengio 2003) over folds, the claim about
    these images on a bootstrap and a sign-flip permutation of groups; a verdict needs both, so the larger p and the
    wider interval count. Holm (1979) adjusts p; each interval is at the level of its step there, so that it leaves zero
    out where Holm rejects.
    """
    raw = [_p_values(pair, groups, direction="two-sided", seed=seed) for pair in pairs]
    larger = [max(p) for p in raw]
    found = []
    for pair, (p_folds, p_images), p, alpha in zip(pairs, raw, holm(larger), levels(larger, 1 - LEVEL), strict=True):
        around_folds = fold_half_width(pair.by_fold, test_to_train=pair.test_to_train, alpha=alpha)
        low, high = image_interval(pair.by_image, groups, alpha=alpha, seed=seed)
        mean = float(np.nanmean(pair.by_image))
        found.append(
            Compared(
                mean=mean,
                low=min(low, mean - around_folds),
                high=max(high, mean + around_folds),
                p_folds=p_folds,
                p_images=p_images,
                p=p,
            )
        )
    return found


def compare_to_margin(
    pairs: Sequence[PairedDice], groups: Sequence[str], *, margin: float, seed: int = SEED
) -> list[NotWorse]:
    """Whether each difference is above minus the margin, all of them planned together; one-sided, at half of 5 %.

    Both claims of ``compare`` are asked for, here of the difference plus the margin. Bounds are at the level that holds
    for all pairs together, so that they can be held against any margin.
    """
    moved = [_moved(pair, margin) for pair in pairs]
    larger = [max(_p_values(pair, groups, direction="greater", seed=seed)) for pair in moved]
    found = []
    alpha = (1 - LEVEL) / max(1, len(pairs))
    for pair, p in zip(pairs, holm(larger), strict=True):
        around_folds = fold_half_width(pair.by_fold, test_to_train=pair.test_to_train, alpha=alpha)
        low, _ = image_interval(pair.by_image, groups, alpha=alpha, seed=seed)
        mean = float(np.nanmean(pair.by_image))
        found.append(NotWorse(mean=mean, low=min(low, mean - around_folds), p=p, margin=margin))
    return found


def fold_half_width(by_fold: Floats, *, test_to_train: float, alpha: float) -> float:
    """Half of the corrected t's interval over J folds: t · √(s² · (1/J + n_test/n_train)), t of J - 1 degrees."""
    if by_fold.size < 2:
        return math.inf
    return float(stdtrit(by_fold.size - 1, 1 - alpha / 2)) * _fold_error(by_fold, test_to_train)


def image_interval(
    by_image: Floats, groups: Sequence[str], *, alpha: float, draws: int = DRAWS, seed: int = SEED
) -> tuple[float, float]:
    """The bootstrap's percentiles of a mean over images, NaN left out, whose groups are drawn with replacement."""
    sums, sizes = sums_by_group(by_image[None], groups)
    if sizes.size < 2:
        return -math.inf, math.inf
    weights = draw_weights(sizes.size, draws=draws, seed=seed)
    low, high = np.quantile((sums[0] @ weights) / (sizes @ weights), [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """P adjusted for being one of several (Holm 1979), in the order given."""
    count, reached, adjusted = len(p_values), 0.0, [1.0] * len(p_values)
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        reached = max(reached, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = reached
    return adjusted


def levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """The level of each one's step in Holm's procedure; after the first that is not rejected, of that step."""
    count, stopped, found = len(p_values), 0.0, [alpha] * len(p_values)
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        step = stopped or alpha / (count - rank)
        if p_values[place] > step:
            stopped = step
        found[place] = step
    return found


def _moved(pair: PairedDice, margin: float) -> PairedDice:
    return PairedDice(by_fold=pair.by_fold + margin, by_image=pair.by_image + margin, test_to_train=pair.test_to_train)


def _p_values(pair: PairedDice, groups: Sequence[str], *, direction: Direction, seed: int) -> tuple[float, float]:
    """Of the folds and of the images."""
    return _p_of_folds(pair, direction), _p_of_images(pair.by_image, groups, direction, seed)


def _p_of_folds(pair: PairedDice, direction: Direction) -> float:
    """Of the mean over images, as the interval is around it: folds may hold more and fewer of them."""
    degrees = pair.by_fold.size - 1
    if degrees < 1:
        return 1.0
    t = float(np.nanmean(pair.by_image)) / _fold_error(pair.by_fold, pair.test_to_train)
    return float(stdtr(degrees, -t)) if direction == "greater" else 2 * float(stdtr(degrees, -abs(t)))


def _p_of_images(by_image: Floats, groups: Sequence[str], direction: Direction, seed: int) -> float:
    """The fraction of sign flips of whole groups that give as large a mean, the observed one counted in."""
    sums, _ = sums_by_group(by_image[None], groups)
    signs = np.random.default_rng(seed).integers(0, 2, size=(sums.shape[1], FLIPS), dtype=np.int8)
    flipped, observed = sums[0] @ (2.0 * signs - 1.0), float(sums.sum())
    tolerance = 1e-12 * float(np.abs(sums).sum())
    as_large = flipped >= observed - tolerance
    if direction == "two-sided":
        as_large = np.abs(flipped) >= abs(observed) - tolerance
    return (1 + int(as_large.sum())) / (1 + FLIPS)


def _fold_error(by_fold: Floats, test_to_train: float) -> float:
    variance = float(by_fold.var(ddof=1))
    return max(math.sqrt(variance * (1 / by_fold.size + test_to_train)), 1e-12)
