"""Dice of students of several shapes, and what averaging their weights adds: docs/results/shapes.md.

    python tests/benchmarks/architectures.py studies/busi-small.yaml --data BUSI_FOLDER --elsewhere breast=BREAST_FOLDER

Trains each shape without a teacher, once per seed, for ``--epochs``. Scores the last epoch's weights and their moving
average on the study's validation and test images together, and on all lesions of the other hospital.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kdsearch.config.data import DataConfig
from kdsearch.config.load import load_study, with_folders
from kdsearch.config.networks import StudentSpec, UNetSpec
from kdsearch.config.quantity import format_quantity
from kdsearch.config.sources import PublishedSource
from kdsearch.config.task import square
from kdsearch.config.training import TrainingSpec
from kdsearch.data.cache import load_dataset
from kdsearch.data.splits import split
from kdsearch.distill.batches import Images, TrainingData, images_at, training_data
from kdsearch.distill.loop import predict_logits, train
from kdsearch.distill.objective import Supervised
from kdsearch.export.checks import lesion_dice
from kdsearch.files.home import home_folder
from kdsearch.models.costs import cost_of
from kdsearch.models.students import build_student

CPU = torch.device("cpu")
SHAPES: tuple[StudentSpec, ...] = (
    UNetSpec(width=4, depth=4, convs_per_stage=1),
    UNetSpec(width=7, growth=1.5, depth=4),
    UNetSpec(width=16, growth=1, depth=4),
    UNetSpec(width=8, growth=1, depth=4),
    UNetSpec(width=12, growth=1, depth=4, conv="separable"),
    UNetSpec(width=24, growth=1, depth=4, conv="separable"),
    UNetSpec(width=4, depth=4, conv="separable"),
    UNetSpec(width=11, depth=4),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training's mean Dice."""

    last: tuple[float, float]
    """Of the last weights, here and elsewhere."""
    averaged: tuple[float, float]
    seconds: float


def main() -> None:
    """Prints a row for each shape as it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--elsewhere", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--averaged-epochs", type=float, default=3)
    parser.add_argument("--shapes", type=int, nargs="*", help="positions of the shapes to train (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    study, home = with_folders(load_study(options.study), options.data), home_folder(os.environ)
    dataset = load_dataset(study.data, home)
    splits = split(dataset, study.data.split, train_on_negatives=study.data.train_on_negatives)
    data = training_data(dataset, splits, CPU)
    reader, _, folder = options.elsewhere.partition("=")
    source = PublishedSource(reader=reader, folder=folder)
    there = load_dataset(DataConfig(sources=(source,), size=study.data.size, on_invalid="skip"), home)
    places = (
        images_at(dataset, (*splits.validation, *splits.test), CPU),
        images_at(there, tuple(range(len(there.infos))), CPU),
    )
    spec = TrainingSpec(epochs=options.epochs, learning_rate=5e-3, ema_epochs=options.ema_epochs)
    print(
        f"{len(data.train)} images to train on, {len(places[0])} and {len(places[1])} to score, {spec.epochs} epochs, "
        f"torch {torch.__version__}, one thread, seeds 0 to {options.seeds - 1}; ± is the deviation over seeds"
    )
    print("| student | params | macs | Dice % | averaged, minus last | elsewhere | averaged, minus last | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for place in options.shapes or range(len(SHAPES)):
        shape = SHAPES[place]
        runs = [run(shape, spec, data, places, seed=seed) for seed in range(options.seeds)]
        print(row(shape, runs, size=study.data.size), flush=True)


def run(shape: StudentSpec, spec: TrainingSpec, data: TrainingData, places: tuple[Images, Images], *, seed: int) -> Run:
    """One training, scored with its last weights and with their average."""
    student = build_student(shape, seed=seed)
    started = time.monotonic()
    for report in train(student, Supervised(student, spec.supervised_loss), data, spec, seed=seed, kept="last"):
        if report.epoch == spec.epochs:  # the average takes their place when the training ends
            last = copy.deepcopy(student)
    seconds = time.monotonic() - started
    return Run(last=dice(last, places), averaged=dice(student, places), seconds=seconds)


def dice(network: torch.nn.Module, places: tuple[Images, Images]) -> tuple[float, float]:
    """Means over the lesions of each hospital."""
    here, there = (float(lesion_dice(predict_logits(network, images.pixels), images).nanmean()) for images in places)
    return here, there


def row(shape: StudentSpec, runs: list[Run], *, size: int) -> str:
    """Of the table."""
    cost = cost_of(shape, square(size))
    cells = [shape.summary(), format_quantity(cost.params), format_quantity(cost.macs)]
    for place in (0, 1):
        last = np.array([run.last[place] for run in runs])
        gained = np.array([run.averaged[place] for run in runs]) - last
        cells += [_spread(last, ".1f"), _spread(gained, "+.1f")]
    return f"| {' | '.join([*cells, f'{np.median([run.seconds for run in runs]):.0f}'])} |"


def _spread(values: np.ndarray, form: str) -> str:
    return (
        f"{100 * values.mean():{form}} ± {100 * values.std(ddof=1):.1f}"
        if len(values) > 1
        else f"{100 * values[0]:{form}}"
    )


if __name__ == "__main__":
    main()
