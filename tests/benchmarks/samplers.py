"""How good a front each sampler finds, on a simulation fitted to recorded students: no training.

    python tests/benchmarks/samplers.py --seeds 8

The space is that of studies/busi-small.yaml. A student's true Dice is a quadratic in the logarithms of its parameters
and multiply-adds, fitted to curves/busi-curves.csv, less 0.06 for each squared decade of learning rate away from 4e-3
(an assumption); what the sampler sees has a training seed's noise on it (standard deviation 0.01). Reported:
hypervolume of the true Dice of the front it believes in, against log10 of parameters, from (1M, 0); means and standard
errors over seeds.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import warnings
from pathlib import Path

import numpy as np
import optuna

from kdsearch.config.load import load_study
from kdsearch.config.study import StudyConfig
from kdsearch.config.task import square
from kdsearch.front.dominance import hypervolume
from kdsearch.models.costs import cost_of, how_far_over
from kdsearch.search.optuna_study import DIRECTIONS
from kdsearch.search.store import StudyStore
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.scores import Cost, Overlap, Scores

ROOT = Path(__file__).parents[2]
BUDGETS = (26, 40, 100, 200)
"""Finished trials."""
NOISE = 0.01
BEST_RATE, RATE_LOSS = 4e-3, 0.06
MOST_PARAMS = 1_000_000


def fit() -> np.ndarray:
    """Coefficients of the quadratic."""
    with (ROOT / "tests/benchmarks/curves/busi-curves.csv").open(encoding="utf-8") as file:
        rows = [(int(row[1]), int(row[2]), max(map(float, row[3:]))) for row in list(csv.reader(file))[1:]]
    terms = np.array([_terms(params, macs) for params, macs, _ in rows])
    return np.linalg.lstsq(terms, np.array([dice for *_, dice in rows]), rcond=None)[0]


def _terms(params: float, macs: float) -> list[float]:
    p, m = math.log10(params), math.log10(macs)
    return [1, p, m, p * p, m * m, p * m]


def true_dice(recipe: Recipe, cost: Cost, coefficients: np.ndarray) -> float:
    """Of the simulated student."""
    off = math.log10(recipe.training.learning_rate / BEST_RATE)
    return float(np.clip(np.dot(_terms(cost.params, cost.macs), coefficients) - RATE_LOSS * off**2, 0.0, 1.0))


def run(study: StudyConfig, coefficients: np.ndarray) -> list[float]:
    """Hypervolumes of the believed front's true Dice after each budget of trials."""
    store = StudyStore(study, optuna.create_study(directions=[DIRECTIONS[name] for name in study.search.objectives]))
    noise = np.random.default_rng(study.seed + 1000)
    found: list[tuple[int, float, float]] = []
    volumes = []
    while len(found) < max(BUDGETS):
        proposal = store.ask()
        assert proposal is not None
        cost = cost_of(proposal.recipe.student, square(study.data.size))
        over = how_far_over(cost, study.search.limits)
        if over > 0:
            store.reject(proposal.number, "over a limit", violation=over)
            continue
        truth = true_dice(proposal.recipe, cost, coefficients)
        seen = float(np.clip(truth + NOISE * noise.standard_normal(), 0.0, 1.0))
        store.finish(proposal.number, _scores(seen, cost), ())
        found.append((cost.params, seen, truth))
        if len(found) in BUDGETS:
            believed = [
                (params, truth) for params, seen, truth in found
                if not any(p <= params and s > seen for p, s, _ in found)
            ]  # fmt: skip
            volumes.append(hypervolume(believed, most_params=MOST_PARAMS))
    return volumes


def _scores(dice: float, cost: Cost) -> Scores:
    overlap = Overlap(dice=dice, dice_std=0.3, iou=dice / 2, images=98, specificity=None, empty_images=0)
    return Scores(
        overlap=overlap, by_source=(), params=cost.params, macs=cost.macs, flops=cost.flops, tool_counts=(),
        train_seconds=1.0, epochs=1, best_epoch=1,
    )  # fmt: skip


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--samplers", default="random,tpe,nsga2,gp")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    os.environ.setdefault("BUSI_FOLDER", "unused")
    study = load_study(ROOT / "studies" / "busi-small.yaml")
    coefficients = fit()
    print("| sampler | " + " | ".join(f"{budget} trials" for budget in BUDGETS) + " |")
    print("|---" * (len(BUDGETS) + 1) + "|")
    for sampler in options.samplers.split(","):
        search = study.search.model_copy(update={"sampler": sampler, "trials": max(BUDGETS)})
        runs = [
            run(study.model_copy(update={"search": search, "seed": seed}), coefficients)
            for seed in range(options.seeds)
        ]
        means, errors = np.mean(runs, axis=0), np.std(runs, axis=0, ddof=1) / math.sqrt(len(runs))
        cells = " | ".join(f"{mean:.3f} ± {error:.3f}" for mean, error in zip(means, errors, strict=True))
        print(f"| `{sampler}` | {cells} |", flush=True)


if __name__ == "__main__":
    main()
