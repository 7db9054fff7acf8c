"""Results of a confirmation as arrays: a row a repetition, a column an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from kdsearch.confirm.images import ScoredImages
from kdsearch.statistics.comparisons import PairedDice, pair_of
from kdsearch.statistics.confirmation import Testing
from kdsearch.trials.scores import Scores

Floats = npt.NDArray[np.float64]
Measure = Literal["dice", "dice_at_size", "nsd", "hd95", "marked"]
"""``dice``, ``nsd`` and ``hd95`` at the files' size; ``marked`` is 1 where anything was marked at the study's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTable:
    """One arm's measures, out of fold."""

    values: Mapping[Measure, Floats]
    """Each R×N; Dice and distances NaN where there is no lesion."""

    def over_images(self, measure: Measure) -> Floats:
        """N: averaged over repetitions."""
        return np.asarray(self.values[measure].mean(axis=0))


def table_of(images: ScoredImages, scores: Mapping[tuple[int, int], Scores]) -> ArmTable:
    """An arm's table from its scores by repetition and fold; NaN for the images of folds without scores."""
    values: dict[Measure, Floats] = {
        name: np.full((len(images.folds), len(images.groups)), math.nan)
        for name in ("dice", "dice_at_size", "nsd", "hd95", "marked")
    }
    for (repetition, fold), found in scores.items():
        here = np.asarray(images.folds[repetition]) == fold
        assert found.per_image is not None, "a confirmation measures each image"
        assert found.native is not None, "a confirmation measures at the files' size"
        values["dice"][repetition, here] = found.native.dice
        values["nsd"][repetition, here] = found.native.nsd
        values["hd95"][repetition, here] = found.native.hd95
        values["dice_at_size"][repetition, here] = found.per_image.dice
        values["marked"][repetition, here] = 1.0 - np.array(found.per_image.empty)
    return ArmTable(values=values)


def paired(images: ScoredImages, arm: ArmTable, other: ArmTable, *, testing: Testing) -> PairedDice:
    """The arm's Dice minus the other's."""
    return paired_rows(images, arm.values["dice"] - other.values["dice"], testing=testing)


def paired_rows(images: ScoredImages, rows: Floats, *, testing: Testing) -> PairedDice:
    """From R×N differences, NaN for an image without a lesion and in folds without scores.

    A single fold holds all images (a test): its repetitions are seeds, which ``pooled first`` compares as such.
    """
    seeds = testing == "pooled first"
    return pair_of(rows, np.asarray(images.folds), test_to_train=images.test_to_train, same_images=seeds)
