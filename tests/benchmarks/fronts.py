"""The front of a study after some minutes of training, on validation and test images: docs/results/shapes.md.

    python tests/benchmarks/fronts.py studies/busi-small.yaml --data BUSI_FOLDER --minutes 60

The study must have been run by this version. The teacher's training is not counted. Test images are scored, but this
use is not counted by the study: do not choose students by these scores.
"""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path

import torch

from kdsearch.campaign.preparation import read_images
from kdsearch.config.load import load_study, with_folders
from kdsearch.distill.batches import images_at
from kdsearch.distill.loop import predict_logits
from kdsearch.export.checks import lesion_dice
from kdsearch.export.folder import load_weights
from kdsearch.files.home import home_folder, weights_path
from kdsearch.front.dominance import hypervolume
from kdsearch.search.store import open_store
from kdsearch.trials.record import students_of

BUDGETS = (1_500, 2_500, 5_000, 10_000, 50_000, 500_000)
MOST_PARAMS = 1_000_000
"""With Dice 0, the hypervolume's reference point."""


def main() -> None:
    """Prints hypervolumes after every second trial, and the best student of each budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    study, home = with_folders(load_study(options.study), options.data), home_folder(os.environ)
    trained = students_of(open_store(study, home, create=False).records())
    minutes = list(itertools.accumulate(student.scores.train_seconds / 60 for student in trained))
    students = [student for student, ended in zip(trained, minutes, strict=True) if ended <= options.minutes]
    for count in range(2, len(students) + 1, 2):
        points = [(student.scores.params, student.scores.dice) for student in students[:count]]
        volume = hypervolume(points, most_params=MOST_PARAMS)
        print(f"{count} trials, {minutes[count - 1]:.0f} minutes: hypervolume {volume:.3f}")
    images = read_images(study, home)
    test = images_at(images.dataset, images.splits.test, torch.device("cpu"))
    print("| parameters up to | validation Dice % | test Dice % | student |\n|---|---|---|---|")
    for most in BUDGETS:
        within = [student for student in students if student.scores.params <= most]
        if not within:
            continue
        best = max(within, key=lambda student: student.scores.dice)
        network = load_weights(best, weights_path(home, study.name, best.job), study.data.task)
        dice = 100 * float(lesion_dice(predict_logits(network, test.pixels), test).nanmean())
        print(f"| {most:,} | {100 * best.scores.dice:.1f} | {dice:.1f} | {best.recipe.student.summary()} |")


if __name__ == "__main__":
    main()
