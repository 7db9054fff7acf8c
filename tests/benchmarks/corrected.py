"""How accurate the corrected Dice and the stability of the front are, in simulations: docs/results/statistics.md.

python tests/benchmarks/corrected.py
"""

from __future__ import annotations

import numpy as np

from kdsearch.statistics.selection import standings

CASES = ((67, 1, 0.0), (67, 20, 0.0), (67, 20, 0.02), (98, 40, 0.0), (98, 40, 0.03), (300, 40, 0.01))
STUDIES, DRAWS, STD, ALIKE = 200, 300, 0.24, 0.7
IMAGES, STUDENTS, FIFTHS = 97, 30, 5
TRAINING_STD = 0.015
"""By which a training moves a student's true Dice away from its recipe's."""


def main() -> None:
    """Prints a row for each number of images and students, then what the stability of the front comes to."""
    print("| validation images | students | spread of true Dice | best's Dice too high by | corrected's by | held |")
    print("|---|---|---|---|---|---|")
    for images, students, spread in CASES:
        apart, corrected, held = np.mean([_study(seed, images, students, spread) for seed in range(STUDIES)], axis=0)
        figures = f"{100 * apart:.1f} | {100 * corrected:+.1f} | {100 * held:.1f} %"
        print(f"| {images} | {students} | {100 * spread:g} | {figures} |")
    print("\n| stability | students | truly on the front |\n|---|---|---|")
    found = np.concatenate([_front(seed) for seed in range(STUDIES)], axis=1)
    place = np.minimum((found[0] * FIFTHS).astype(int), FIFTHS - 1)
    for fifth in range(FIFTHS):
        stable, true = found[:, place == fifth]
        print(f"| {100 * stable.mean():.0f} % | {stable.size} | {100 * true.mean():.0f} % |")


def _scores(rng: np.random.Generator, true: np.ndarray, images: int) -> list[np.ndarray]:
    """Each student's Dice on each image."""
    shared = STD * np.sqrt(ALIKE) * rng.normal(size=images)
    return [one + shared + STD * np.sqrt(1 - ALIKE) * rng.normal(size=images) for one in true]


def _study(seed: int, images: int, students: int, spread: float) -> tuple[float, float, bool]:
    """How much too high the chosen's Dice and the corrected one are, and whether the interval holds the truth."""
    rng = np.random.default_rng(seed)
    true = 0.7 + spread * rng.normal(size=students)
    dice = _scores(rng, true, images)
    costs, alone = np.arange(float(students))[:, None], [str(image) for image in range(images)]
    found = standings(dice, costs, alone, draws=DRAWS, seed=seed)
    assert found is not None
    best, truth = found[-1].corrected, int(np.argmax([one.mean() for one in dice]))
    return dice[truth].mean() - true[truth], best.dice - true[truth], best.low <= true[truth] <= best.high


def _front(seed: int) -> np.ndarray:
    """2×M: each student's stability, and whether its recipe is on the front of the recipes' true Dice.

    Dice rises by 5 points per factor of 10 in parameters; recipes of one size differ by 2 points (standard deviation).
    """
    rng = np.random.default_rng(seed)
    decades = rng.uniform(0, 3, STUDENTS)
    costs = np.stack([decades, decades + rng.normal(0, 0.3, STUDENTS)], axis=1)
    recipes = 0.6 + 0.05 * decades + rng.normal(0, 0.02, STUDENTS)
    dice = _scores(rng, recipes + TRAINING_STD * rng.normal(size=STUDENTS), IMAGES)
    found = standings(dice, costs, [str(image) for image in range(IMAGES)], draws=DRAWS, seed=seed)
    assert found is not None
    no_larger = np.all(costs[:, None, :] <= costs[None, :, :], axis=2)
    beaten = no_larger & (recipes[:, None] > recipes[None, :])
    return np.array([[one.stability for one in found], ~beaten.any(axis=0)])


if __name__ == "__main__":
    main()
