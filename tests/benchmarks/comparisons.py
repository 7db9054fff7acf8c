"""How often the intervals of confirm and test contain the truth, and how often effects are found, in simulations.

    python tests/benchmarks/comparisons.py

Prints tables of docs/results/statistics.md in about three minutes. Uncertainty over images is a cluster-robust t, as in
the dry run; resampling would take hours and is checked by slow tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from kdsearch.statistics.comparisons import ALPHA, Error, PairedDice, holm, image_error, recipe_error
from kdsearch.statistics.power import MEMBER_AND_TWIN, Layout, Noise, exceeds, paired_rows, simulate

FOLDS, PAIRS, STUDIES, MARGIN = 5, 4, 1000, 0.02
ASSUMED = Noise(image=0.17, on_image=0.08, run=0.01, trained_on=0.006, alike=0.3)
"""What was simulated before the noise of member and twin was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Fractions of simulated studies."""

    holds: float
    """The pooled effect's interval includes the truth."""
    by_images: float
    """The interval over images by itself includes it."""
    by_recipes: float
    """The interval over folds or seeds by itself includes it."""
    helps: float
    hurts: float
    helps_in_one_family: float
    """Under the earlier rule, by which the pooled effect and the pairs share Holm's levels."""
    pair_helps: float
    """The first pair gets the verdict ``helps``."""
    pair_helps_in_one_family: float
    no_worse: float
    """The first pair's difference is shown to be above minus 2 points."""
    half_width: float
    """Mean half width of the pooled effect's interval."""


def layout(
    rng: np.random.Generator, *, images: int, repetitions: int, folds: int = FOLDS, pairs: int = PAIRS
) -> Layout:
    """Groups of one to three images in random folds; of one fold, repetitions are seeds on the same images."""
    sizes = rng.choice([1, 1, 1, 1, 2, 3], size=images)
    groups = np.repeat(np.arange(images), sizes)[:images]
    dealt = np.stack([rng.integers(0, folds, images)[groups] for _ in range(repetitions)])
    return Layout(groups=groups, folds=dealt, test_to_train=1 / 4 if folds > 1 else 1 / 5, pairs=pairs)


def shares(
    *,
    images: int,
    repetitions: int,
    effect: float,
    noise: Noise,
    studies: int = STUDIES,
    folds: int = FOLDS,
    seed: int = 0,
) -> Shares:
    """Of that many studies with four pairs, all of whose true effects are ``effect``."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(studies):
        plan = layout(rng, images=images, repetitions=repetitions, folds=folds)
        rows.append(_study(plan, simulate(rng, plan, noise=noise, effect=effect), effect))
    return Shares(**dict(zip(Shares.__slots__, np.mean(rows, axis=0).tolist(), strict=True)))


def _study(plan: Layout, values: np.ndarray, truth: float) -> tuple[float, ...]:
    pairs, pooled = [paired_rows(plan, row) for row in values], paired_rows(plan, values.mean(axis=0))
    errors = recipe_error(pooled, plan.groups), image_error(pooled.by_image, plan.groups)
    mean, half_widths = float(np.nanmean(pooled.by_image)), [error.half_width(ALPHA) for error in errors]
    by_recipes, by_images = (abs(mean - truth) <= half_width for half_width in half_widths)
    p_pooled, p_pairs = _p(pooled, plan), [_p(pair, plan) for pair in pairs]
    family = holm([*p_pairs, p_pooled])
    helps, first = p_pooled <= ALPHA and mean > 0, float(np.nanmean(pairs[0].by_image)) > 0
    return (
        by_recipes or by_images,
        by_images,
        by_recipes,
        helps,
        p_pooled <= ALPHA and mean < 0,
        family[-1] <= ALPHA and mean > 0,
        helps and holm(p_pairs)[0] <= ALPHA and first,
        family[0] <= ALPHA and first,
        exceeds(pairs[0], plan.groups, level=-MARGIN),
        max(half_widths),
    )


def _p(pair: PairedDice, plan: Layout) -> float:
    """The larger of both."""
    mean = float(np.nanmean(pair.by_image))
    return max(
        _two_sided(mean, error) for error in (recipe_error(pair, plan.groups), image_error(pair.by_image, plan.groups))
    )


def _two_sided(mean: float, error: Error) -> float:
    return 2 * float(stdtr(error.degrees, -abs(mean) / error.standard))


def main() -> None:
    """Prints a table for confirm, then one for test."""
    print("confirm, 550 images, 4 pairs")
    print(
        "| noise | repetitions | true effect | interval holds | by images | by folds | shown | before | pair shown | "
        "before | no worse by 2 | ± points |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name, noise in (("assumed", ASSUMED), ("measured", MEMBER_AND_TWIN)):
        for repetitions in (1, 3):
            for effect in (0.0, 0.02, 0.04):
                found = shares(images=550, repetitions=repetitions, effect=effect, noise=noise)
                cells = (found.holds, found.by_images, found.by_recipes, found.helps + found.hurts * (effect == 0))
                cells += (found.helps_in_one_family, found.pair_helps, found.pair_helps_in_one_family, found.no_worse)
                words = " | ".join(f"{100 * cell:.1f} %" for cell in cells)
                print(
                    f"| {name} | {repetitions} | {100 * effect:+.0f} | {words} | {100 * found.half_width:.1f} |",
                    flush=True,
                )
    print("\ntest, 97 images on which every seed is scored, 4 pairs, no true effect")
    print("| noise | seeds | interval holds | by images | by recipes | ± points |\n|---|---|---|---|---|---|")
    for name, noise in (("assumed", ASSUMED), ("measured", MEMBER_AND_TWIN)):
        for seeds in (3, 10):
            found = shares(images=97, repetitions=seeds, effect=0.0, noise=noise, folds=1)
            words = " | ".join(f"{100 * cell:.1f} %" for cell in (found.holds, found.by_images, found.by_recipes))
            print(f"| {name} | {seeds} | {words} | {100 * found.half_width:.1f} |", flush=True)


if __name__ == "__main__":
    main()
