"""Whether students that start from a wider student's weights need fewer epochs: docs/results/inheritance.md.

    python tests/benchmarks/inheritance.py studies/busi-small.yaml --data BUSI_FOLDER

Trains five shapes with several seeds: from scratch for ``--epochs`` or two thirds of them, and for two thirds or half
of them from the channels with the largest L1 norms of a wider student, with batch norms re-estimated. Scores the last
weights on the study's validation and test images together. Intervals come from a bootstrap over groups of images and
over trainings.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kdsearch.config.load import load_study, with_folders
from kdsearch.config.networks import UNetSpec
from kdsearch.config.training import TrainingSpec
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import group_of
from kdsearch.data.splits import split
from kdsearch.distill.batches import Images, TrainingData, images_at, training_data
from kdsearch.distill.loop import predict_logits, train
from kdsearch.distill.objective import Supervised
from kdsearch.export.checks import lesion_dice
from kdsearch.files.home import home_folder
from kdsearch.models.students import build_student
from kdsearch.models.unet import UNet, inherit
from kdsearch.statistics.resampling import Floats, draw_means, sums_by_group

CPU = torch.device("cpu")
PAIRS = (
    (UNetSpec(width=4, depth=4, convs_per_stage=1), UNetSpec(width=8, depth=4, convs_per_stage=1)),
    (UNetSpec(width=8, growth=1, depth=4), UNetSpec(width=16, growth=1, depth=4)),
    (UNetSpec(width=7, growth=1.5, depth=4), UNetSpec(width=11, growth=1.5, depth=4)),
    (
        UNetSpec(width=12, growth=1, depth=4, conv="separable"),
        UNetSpec(width=24, growth=1, depth=4, conv="separable"),
    ),
    (UNetSpec(width=4, depth=4, conv="separable"), UNetSpec(width=8, depth=4, conv="separable")),
)
"""A shape, and the wider one that it inherits from."""
ARMS = (("cold", 1.0), ("cold", 2 / 3), ("inherited", 2 / 3), ("inherited", 0.5))
"""How a student begins, and for which part of the epochs it trains; the first is what the others are compared with."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One training."""

    dice: Floats
    """Of each lesion."""
    seconds: float


def main() -> None:
    """Prints a line a training and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    study, home = with_folders(load_study(options.study), options.data), home_folder(os.environ)
    dataset = load_dataset(study.data, home)
    splits = split(dataset, study.data.split, train_on_negatives=study.data.train_on_negatives)
    data, held = training_data(dataset, splits, CPU), (*splits.validation, *splits.test)
    images, groups = images_at(dataset, held, CPU), [group_of(dataset.infos[place]) for place in held]
    found: dict[tuple[str, float], list[Outcome]] = {arm: [] for arm in ARMS}
    for seed in options.seeds:
        for shape, wider in PAIRS:
            spec = TrainingSpec(epochs=options.epochs, learning_rate=5e-3)
            donor = build_student(wider, seed=seed)
            fit(donor, data, spec, seed=seed)
            for begin, part in ARMS:
                student = build_student(shape, seed=seed)
                if begin == "inherited":
                    inherit(student, donor, data.train.pixels)
                short = spec.model_copy(update={"epochs": round(part * options.epochs)})
                seconds = fit(student, data, short, seed=seed)
                outcome = Outcome(dice=dice(student, images), seconds=seconds)
                found[begin, part].append(outcome)
                print(
                    f"seed {seed}, {shape.summary()}, {begin}, {short.epochs} epochs: "
                    f"{100 * np.nanmean(outcome.dice):.1f} % in {seconds:.0f} s",
                    flush=True,
                )
    print("| begins | epochs | Dice % | minus the first [95 %] | seconds, of the first's |\n|---|---|---|---|---|")
    first = found[ARMS[0]]
    for begin, part in ARMS:
        rows = found[begin, part]
        cost = np.mean([row.seconds / other.seconds for row, other in zip(rows, first, strict=True)])
        apart = np.stack([row.dice - other.dice for row, other in zip(rows, first, strict=True)])
        mean = 100 * np.mean([np.nanmean(row.dice) for row in rows])
        print(f"| {begin} | {round(part * options.epochs)} | {mean:.1f} | {interval(apart, groups)} | {cost:.2f} |")


def fit(student: UNet, data: TrainingData, spec: TrainingSpec, *, seed: int) -> float:
    """Trains it without a teacher, to its last weights; returns the seconds."""
    started = time.monotonic()
    for _ in train(student, Supervised(student, spec.supervised_loss), data, spec, seed=seed, kept="last"):
        pass
    return time.monotonic() - started


def dice(network: nn.Module, images: Images) -> Floats:
    """Of each image, NaN where it holds no lesion."""
    return lesion_dice(predict_logits(network, images.pixels), images).numpy().astype(np.float64)


def interval(apart: Floats, groups: list[str]) -> str:
    """Mean and 95 % of differences T×N of trainings and images, both drawn with replacement."""
    sums, sizes = sums_by_group(apart, groups)
    by_training = draw_means(sums, sizes)
    drawn = np.random.default_rng(1).multinomial(len(apart), [1 / len(apart)] * len(apart), size=by_training.shape[1])
    means = (by_training * drawn.T / len(apart)).sum(axis=0)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{100 * np.nanmean(apart):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


if __name__ == "__main__":
    main()
