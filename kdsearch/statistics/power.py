"""Statistical power of a number of images, or of a plan with folds and repetitions, before any training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from kdsearch.statistics.comparisons import ALPHA, PairedDice, image_error, pair_of, recipe_error
from kdsearch.statistics.resampling import LEVEL, SEED, Floats, Groups

PAIRED_STD = 0.175
"""Standard deviation of the difference of two trained students' Dice on one image, measured on BUSI with students of
one study. It includes the noise of both trainings, so it does not describe recipes."""
POWER = 0.8
STUDIES = 300
"""Number of simulated studies from which the power of a plan is estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Standard deviations of the components of a Dice difference between two recipes."""

    image: float
    """Over images: the component that is the same in all trainings; half of its variance is shared within a group."""
    on_image: float
    """Over images: the component that differs between trainings."""
    run: float
    """Over trainings: the shift of the mean."""
    trained_on: float
    """The shift of the mean if all training images were replaced."""
    alike: float
    """Fraction of the variance of ``image`` that the pairs of one study share."""


MEMBER_AND_TWIN = Noise(image=0.03, on_image=0.095, run=0.016, trained_on=0.006, alike=0.3)
"""For a student minus its twin, which share the seed, on BUSI at 64×64. The first two are measured with one pair of
3.3k parameters (``tests/benchmarks/components.py``, whose run part is 0.009); the run part follows from the intervals
over folds of the eight pairs in docs/results/distillation.md (0.004 to 0.034); the last two are assumed."""
TWO_RECIPES = Noise(image=0.097, on_image=0.146, run=0.021, trained_on=0.006, alike=0.3)
"""For two recipes with different seeds, measured on BUSI with students of 5.8k and 49k parameters; the last two are
assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The lesion images that a plan scores, and its folds."""

    groups: npt.NDArray[np.int_]
    """N group numbers of the images."""
    folds: npt.NDArray[np.int_]
    """R×N: the fold of each image in each repetition; all 0 if the repetitions are seeds on the same images."""
    test_to_train: float
    pairs: int
    """Number of students with a twin."""


def least_difference(images: int, *, std: float = PAIRED_STD) -> float:
    """Computes the smallest difference in mean Dice that N lesion images can detect between two trained students.

    It is (z₀.₉₇₅ + z₀.₈) · std / √N: 80 % power at a level of 95 %, for one planned comparison on
    independent images. Infinite for no images.
    """
    if images < 1:
        return math.inf
    return float(ndtri((1 + LEVEL) / 2) + ndtri(POWER)) * std / math.sqrt(images)


def power_of_pooled_effect(
    layout: Layout, *, effect: float, noise: Noise = MEMBER_AND_TWIN, studies: int = STUDIES, seed: int = SEED
) -> float:
    """Simulates studies with a true effect of distillation; returns how often the plan's pooled effect shows it."""
    rng = np.random.default_rng(seed)
    shown = 0
    for _ in range(studies):
        rows = simulate(rng, layout, noise=noise, effect=effect).mean(axis=0)
        shown += exceeds(paired_rows(layout, rows), layout.groups, level=0.0)
    return shown / studies


def power_of_no_worse(
    layout: Layout, *, margin: float, noise: Noise = TWO_RECIPES, studies: int = STUDIES, seed: int = SEED
) -> float:
    """Simulates studies of two equal students; returns how often the plan shows the smaller within the margin."""
    rng = np.random.default_rng(seed)
    rows = (simulate(rng, layout, noise=noise, effect=0.0, pairs=1)[0] for _ in range(studies))
    return sum(exceeds(paired_rows(layout, row), layout.groups, level=-margin) for row in rows) / studies


def simulate(
    rng: np.random.Generator, layout: Layout, *, noise: Noise, effect: float, pairs: int | None = None
) -> Floats:
    """Simulates the P×R×N Dice differences of one study, in which each pair's true difference is ``effect``.

    The effect of the training images is a sum over images, so that folds with mostly the same training
    images have mostly the same effect.
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
    """Draws P×N values of unit variance, half of which is shared within each group."""
    common = rng.normal(0, 0.5**0.5, (pairs, int(groups.max()) + 1))
    return np.asarray(common[:, groups] + rng.normal(0, 0.5**0.5, (pairs, groups.size)))


def exceeds(pair: PairedDice, groups: Groups, *, level: float) -> bool:
    """Returns whether the whole 95 % interval of the difference is above ``level``.

    Like ``comparisons.compare`` for a single comparison, but uses t instead of resampling over images,
    which is a thousand times faster.
    """
    errors = recipe_error(pair, groups), image_error(pair.by_image, groups)
    return float(np.nanmean(pair.by_image)) - max(error.half_width(ALPHA) for error in errors) > level


def paired_rows(layout: Layout, rows: Floats) -> PairedDice:
    """Makes paired differences from R×N differences."""
    return pair_of(rows, layout.folds, test_to_train=layout.test_to_train, same_images=True)
