"""Measures the parts of the noise of member minus twin from a confirmed study with two repetitions or more.

The constants of ``kdsearch.statistics.power``, with ``BUSI_FOLDER`` set to the images, in about half an hour::

    study=tests/benchmarks/components.yaml
    kdsearch run $study && kdsearch confirm $study && python tests/benchmarks/components.py $study
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from kdsearch.config.load import load_study, with_folders
from kdsearch.confirm.answers import table_of
from kdsearch.confirm.store import ConfirmStore, ScoredImages
from kdsearch.files.home import home_folder
from kdsearch.workflow.confirm import finished_plans


def components(rows: np.ndarray, folds: np.ndarray) -> dict[str, float]:
    """Standard deviations from R×N differences (NaN for negative images) and the fold of each image in each repetition.

    The covariance of two repetitions over images is what every training repeats; what is left within a fold is one
    training's; the variance of fold means beyond that of their images is a shift of the training.
    """
    residuals, shifts = np.full_like(rows, np.nan), []
    for repetition, row in enumerate(rows):
        means, expected = [], []
        for fold in np.unique(folds[repetition]):
            here = (folds[repetition] == fold) & ~np.isnan(row)
            residuals[repetition, here] = row[here] - row[here].mean()
            means.append(row[here].mean())
            expected.append(row[here].var(ddof=1) / here.sum())
        shifts.append(np.var(means, ddof=1) - np.mean(expected))
    lesion = ~np.isnan(residuals[0])
    covariance = np.cov(residuals[:, lesion])
    repeated = np.mean(covariance[np.triu_indices(len(rows), k=1)])
    return {
        "image": float(np.sqrt(max(0.0, repeated))),
        "on_image": float(np.sqrt(max(0.0, np.mean(np.diag(covariance)) - repeated))),
        "run": float(np.sqrt(max(0.0, np.mean(shifts)))),
    }


def differences(store: ConfirmStore, images: ScoredImages) -> dict[str, np.ndarray]:
    """R×N differences of Dice of each pair of member and twin."""
    results = store.results()
    tables = {
        arm.id: table_of(
            images,
            {key[1:]: one.scores for key, one in results.items() if key[0] == arm.id and one.scores is not None},
        ).values["dice"]
        for arm in store.plan.arms
    }
    return {f"{pair.arm} - {pair.other}": tables[pair.arm] - tables[pair.other] for pair in store.plan.twins}


def main() -> None:
    """Prints a row a pair, in points of Dice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", action="append", default=[])
    options = parser.parse_args()
    study = with_folders(load_study(options.study), options.data)
    store = finished_plans(study, home_folder(os.environ), kind="confirm")[-1]
    images = store.images()
    print("| pair | images | image | on image | run | mean difference |\n|---|---|---|---|---|---|")
    for name, rows in differences(store, images).items():
        found = components(rows, np.asarray(images.folds))
        words = " | ".join(f"{100 * value:.1f}" for value in (*found.values(), float(np.nanmean(rows))))
        print(f"| {name} | {int((~np.isnan(rows[0])).sum())} | {words} |")


if __name__ == "__main__":
    main()
