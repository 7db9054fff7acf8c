"""How often the intervals of confirm hold and its verdicts are right, where the truth is known; docs/confirm.md has it.

Run it with ``python tests/benchmarks/comparisons.py``: one process, about four minutes.
"""

from __future__ import annotations

import numpy as np

from kdsearch.statistics.comparisons import (
    PairedDice,
    compare,
    compare_to_margin,
    fold_half_width,
    image_interval,
)

SHARES = ("holds", "images_hold", "folds_hold", "helps", "hurts", "not_worse")
FOLDS = 5
IMAGE_STD = 0.17
"""Of the paired difference of two recipes on one image, whatever the training."""
TRAINED_ON_STD = 0.006
"""Of what the choice of training images does to the difference of two recipes, if all images were others."""
SEED_STD = 0.01
"""Of what a training seed does to the mean of one network's difference."""
RUN_STD = 0.08
"""Of what a training does to the difference on one image."""


def simulate(
    rng: np.random.Generator, *, images: int, repetitions: int, effect: float
) -> tuple[PairedDice, list[str], float]:
    """One pair of recipes whose true difference is ``effect``; also the images' groups.

    What a network owes to its training images is the sum of what each of them gives, so that folds which share most of
    their training images share most of it. Groups hold one to three images, which have half of their variance in
    common.
    """
    sizes = rng.choice([1, 1, 1, 1, 2, 3], size=images)
    groups = np.repeat(np.arange(images), sizes)[:images]
    own, common = rng.normal(0, IMAGE_STD * 0.5**0.5, images), rng.normal(0, IMAGE_STD * 0.5**0.5, images)
    image = own + common[groups]
    given = rng.normal(0, TRAINED_ON_STD / (0.8 * images) ** 0.5, images)
    by_fold, rows = [], []
    for _ in range(repetitions):
        fold_of = rng.integers(0, FOLDS, images)[groups]
        row = np.empty(images)
        for fold in range(FOLDS):
            here = fold_of == fold
            trained = given[~here].sum() + rng.normal(0, SEED_STD)
            row[here] = effect + image[here] + trained + rng.normal(0, RUN_STD, here.sum())
            by_fold.append(row[here].mean())
        rows.append(row)
    pair = PairedDice(by_fold=np.array(by_fold), by_image=np.mean(rows, axis=0), test_to_train=1 / (FOLDS - 1))
    return pair, [str(group) for group in groups], effect


def coverage(*, images: int, repetitions: int, effect: float, studies: int, seed: int = 0) -> dict[str, float]:
    """Fractions of simulated studies with one planned pair."""
    rng = np.random.default_rng(seed)
    names = ("holds", "images_hold", "folds_hold", "helps", "hurts", "not_worse", "width")
    counts = dict.fromkeys(names, 0.0)
    for _ in range(studies):
        pair, groups, truth = simulate(rng, images=images, repetitions=repetitions, effect=effect)
        found = compare([pair], groups)[0]
        counts["holds"] += found.low <= truth <= found.high
        low, high = image_interval(pair.by_image, groups, alpha=0.05)
        around = fold_half_width(pair.by_fold, test_to_train=pair.test_to_train, alpha=0.05)
        counts["images_hold"] += low <= truth <= high
        counts["folds_hold"] += abs(pair.by_fold.mean() - truth) <= around
        counts["helps"] += found.shown and found.mean > 0
        counts["hurts"] += found.shown and found.mean < 0
        counts["not_worse"] += compare_to_margin([pair], groups, margin=0.02)[0].shown
        counts["width"] += (found.high - found.low) / 2
    return {name: value / studies for name, value in counts.items()}


def main() -> None:
    """Prints the table."""
    print(
        "| images | repetitions | true difference | interval holds it | by images | by folds | helps | hurts | "
        "no worse by 2 | ± points |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for images in (110, 550):
        for repetitions in (1, 3):
            for effect in (0.0, 0.02, 0.04):
                row = coverage(images=images, repetitions=repetitions, effect=effect, studies=300)
                shares = " | ".join(f"{100 * row[name]:.1f} %" for name in SHARES)
                print(f"| {images} | {repetitions} | {100 * effect:+.0f} | {shares} | {100 * row['width']:.1f} |")


if __name__ == "__main__":
    main()
