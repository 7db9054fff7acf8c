"""Which members are worse than a smaller one beyond doubt, so that no more is spent on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from kdsearch.confirm.images import ScoredImages
from kdsearch.confirm.plan import Plan
from kdsearch.confirm.store import FoldResult
from kdsearch.statistics.differences import simultaneous_differences

FEWEST_FOLDS = 2
"""One training of each says too little."""


def overtaken(
    plan: Plan,
    images: ScoredImages,
    results: Mapping[tuple[str, int, int], FoldResult],
    *,
    done: Collection[tuple[int, int]],
    dropped: Collection[str],
) -> dict[str, str]:
    """Members whose simultaneous upper bound lies under the best of no larger size, with why.

    ``done`` are the folds that every other arm has been scored in, by repetition and fold.
    """
    if len(done) < FEWEST_FOLDS:
        return {}
    racing = [
        arm
        for arm in plan.members
        if arm.id not in dropped
        and all((found := results.get((arm.id, *place))) is not None and found.scores is not None for place in done)
    ]
    dice = {arm.id: _dice(arm.id, images, results, done) for arm in racing}
    pairs = []
    for arm in racing:
        smaller = [other for other in racing if other.params <= arm.params and other.id != arm.id]
        if smaller:
            pairs.append((arm, max(smaller, key=lambda other: float(np.nanmean(dice[other.id])))))
    if not pairs:
        return {}
    behind = simultaneous_differences(
        np.zeros(len(images.groups)), [dice[arm.id] - dice[best.id] for arm, best in pairs], images.groups
    )
    return {
        arm.id: f"{found} points behind {best.name}, which is no larger, after {len(done)} folds"
        for (arm, best), found in zip(pairs, behind, strict=True)
        if found.mean - found.half_width > 0
    }


def twins_without_member(plan: Plan, dropped: Collection[str]) -> dict[str, str]:
    """Twins whose members were all dropped."""
    needed = {pair.other for pair in plan.twins if pair.arm not in dropped}
    return {
        arm.id: "its member was dropped"
        for arm in plan.arms
        if arm.role == "twin" and arm.id not in needed and arm.id not in dropped
    }


def _dice(
    arm: str,
    images: ScoredImages,
    results: Mapping[tuple[str, int, int], FoldResult],
    done: Collection[tuple[int, int]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """N: averaged over the repetitions that have scored an image; NaN where none has."""
    sums, counts = np.zeros(len(images.groups)), np.zeros(len(images.groups))
    for repetition, fold in done:
        scores = results[arm, repetition, fold].scores
        assert scores is not None, "checked before"
        assert scores.native is not None, "a confirmation measures at the files' size"
        here = np.asarray(images.folds[repetition]) == fold
        sums[here] += scores.native.dice
        counts[here] += 1
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
