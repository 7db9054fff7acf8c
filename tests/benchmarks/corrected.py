"""How true the corrected Dice is where the truth is known: the table in docs/scores.md.

python tests/benchmarks/corrected.py
"""

from __future__ import annotations

import numpy as np

from kdsearch.statistics.selection import standings

CASES = ((67, 1, 0.0), (67, 20, 0.0), (67, 20, 0.02), (98, 40, 0.0), (98, 40, 0.03), (300, 40, 0.01))
STUDIES, DRAWS, STD, ALIKE = 200, 300, 0.24, 0.7


def main() -> None:
    """Prints a row for each number of images and students."""
    print("| validation images | students | spread of true Dice | best's Dice too high by | corrected's by | held |")
    print("|---|---|---|---|---|---|")
    for images, students, spread in CASES:
        apart, corrected, held = np.mean([_study(seed, images, students, spread) for seed in range(STUDIES)], axis=0)
        figures = f"{100 * apart:.1f} | {100 * corrected:+.1f} | {100 * held:.1f} %"
        print(f"| {images} | {students} | {100 * spread:g} | {figures} |")


def _study(seed: int, images: int, students: int, spread: float) -> tuple[float, float, bool]:
    """How much too high the chosen's Dice and the corrected one are, and whether the interval holds the truth."""
    rng = np.random.default_rng(seed)
    true = 0.7 + spread * rng.normal(size=students)
    shared = STD * np.sqrt(ALIKE) * rng.normal(size=images)
    dice = [one + shared + STD * np.sqrt(1 - ALIKE) * rng.normal(size=images) for one in true]
    costs, alone = np.arange(float(students))[:, None], [str(image) for image in range(images)]
    found = standings(dice, costs, alone, draws=DRAWS, seed=seed)
    assert found is not None
    best, truth = found[-1].corrected, int(np.argmax([one.mean() for one in dice]))
    return dice[truth].mean() - true[truth], best.dice - true[truth], best.low <= true[truth] <= best.high


if __name__ == "__main__":
    main()
