"""What a number of images, or a plan of folds and repetitions, can show; computed before anything is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from kdsearch.statistics.comparisons import ALPHA, PairedDice, image_error, pair_of, recipe_error
from kdsearch.statistics.resampling import LEVEL, SEED, Floats, Groups

PAIRED_STD = 0.175
"""Of the difference of two trained students' Dice on one image; measured on BUSI with students of one study. It
includes the noise of the two trainings, so it says nothing about recipes."""
POWER = 0.8
STUDIES = 300
"""Simulated to find the power of a plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Standard deviations of the parts of a difference of Dice between two recipes."""

    image: float
    """Over images, of the part that every training repeats; half of this variance is common to a group."""
    on_image: float
    """Over images, of what one pair of trainings adds on each image."""
    run: float
    """Over trainings, of the shift of the mean."""
    trained_on: float
    """Of what the choice of training images does to the mean, if all of them were others."""
    alike: float
    """Fraction of the variance of ``image`` that the pairs of one study have in common."""


MEMBER_AND_TWIN = Noise(image=0.03, on_image=0.095, run=0.016, trained_on=0.006, alike=0.3)
"""Of a member minus its twin, which share the seed, on BUSI at 64×64. The first two are measured with one pair of 3.3k
parameters (``tests/benchmarks/components.py``, whose run part is 0.009); the run part follows from the intervals over
folds of the eight pairs in docs/results/distillation.md (0.004 to 0.034); the last two are assumed."""
TWO_RECIPES = Noise(image=0.097, on_image=0.146, run=0.021, trained_on=0.006, alike=0.3)
"""Of two recipes without a common seed, measured on BUSI with students of 5.8k and 49k parameters; the last two are
assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The images with a lesion that a plan scores, and its folds."""

    groups: npt.NDArray[np.int_]
    """N numbers, equal for images that belong together."""
    folds: npt.NDArray[np.int_]
    """R×N: the fold of each image in each repetition; all 0 if the repetitions are seeds on the same images."""
    test_to_train: float
    pairs: int
    """Members with a twin."""


def least_difference(images: int, *, std: float = PAIRED_STD) -> float:
    """The least difference in mean Dice between two trained students that N images with a lesion show.

    With 80 % power at 95 %: (z₀.₉₇₅ + z₀.₈) · std / √N, for one planned comparison of independent images; infinite for
    no images.
    """
    if images < 1:
        return math.inf
    return float(ndtri((1 + LEVEL) / 2) + ndtri(POWER)) * std / math.sqrt(images)


def power_of_pooled_effect(
    layout: Layout, *, effect: float, noise: Noise = MEMBER_AND_TWIN, studies: int = STUDIES, seed: int = SEED
) -> float:
    """How often a plan shows a pooled effect of distillation of that true size, in simulated studies."""
    rng = np.random.default_rng(seed)
    shown = 0
    for _ in range(studies):
        rows = simulate(rng, layout, noise=noise, effect=effect).mean(axis=0)
        shown += exceeds(paired_rows(layout, rows), layout.groups, level=0.0)
    return shown / studies


def power_of_no_worse(
    layout: Layout, *, margin: float, noise: Noise = TWO_RECIPES, studies: int = STUDIES, seed: int = SEED
) -> float:
    """How often a plan shows that the next smaller member is no worse by the margin, if both are truly equal."""
    rng = np.random.default_rng(seed)
    rows = (simulate(rng, layout, noise=noise, effect=0.0, pairs=1)[0] for _ in range(studies))
    return sum(exceeds(paired_rows(layout, row), layout.groups, level=-margin) for row in rows) / studies


def simulate(
    rng: np.random.Generator, layout: Layout, *, noise: Noise, effect: float, pairs: int | None = None
) -> Floats:
    """P×R×N differences of Dice of one study, each pair's true difference being ``effect``.

    What a network owes to its training images is the sum of what each of them gives, so that folds which share most of
    their training images share most of it.
    """
    count = layout.pairs if pairs is None else pairs
    repetitions, images = layout.folds.shape
    own = _image_part(rng, layout.groups, count) * (1 - noise.alike) ** 0.5
    image = noise.image * (own + _image_part(rng, layout.groups, 1) * noise.alike**0.5)
    found = effect + image[:, None, :] + rng.normal(0, noise.on_image, (count, repetitions, images))
    folds = int(layout.folds.max()) + 1
    trained = images * (1 - 1 / folds) if folds > 1 else images
    given = rng.normal(0, noise.trained_on / math.sqrt(trained), (count, images))
    for repetition, fold_of in enumerate(layout.folds):
        scored = np.stack([np.bincount(fold_of, weights=row, minlength=folds) for row in given])
        shift = given.sum(axis=1, keepdims=True) - scored if folds > 1 else given.sum(axis=1, keepdims=True)
        shift = shift + rng.normal(0, noise.run, (count, folds))
        found[:, repetition] += shift[:, fold_of]
    return np.asarray(found)


def _image_part(rng: np.random.Generator, groups: npt.NDArray[np.int_], pairs: int) -> Floats:
    """P×N of unit variance, half of it common to each group."""
    common = rng.normal(0, 0.5**0.5, (pairs, int(groups.max()) + 1))
    return np.asarray(common[:, groups] + rng.normal(0, 0.5**0.5, (pairs, groups.size)))


def exceeds(pair: PairedDice, groups: Groups, *, level: float) -> bool:
    """Whether the whole interval of the difference at 95 % lies above ``level``.

    As ``comparisons.compare`` for a single comparison, but with t in place of resampling for the images, which is a
    thousand times as fast.
    """
    errors = recipe_error(pair, groups), image_error(pair.by_image, groups)
    return float(np.nanmean(pair.by_image)) - max(error.half_width(ALPHA) for error in errors) > level


def paired_rows(layout: Layout, rows: Floats) -> PairedDice:
    """From R×N differences."""
    return pair_of(rows, layout.folds, test_to_train=layout.test_to_train, same_images=True)
