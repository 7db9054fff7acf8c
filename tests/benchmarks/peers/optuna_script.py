"""A search as Optuna's documentation writes it: two objectives, TPE or NSGA-II, one objective function.

python tests/benchmarks/peers/optuna_script.py FOLDER OUT --sampler tpe --seed 0 --seconds 600
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

BEGAN = time.time()

import optuna  # noqa: E402 - what imports take is counted
from training import PATHS, Script, Settings  # noqa: E402

from kdsearch.config.task import square  # noqa: E402
from kdsearch.models.costs import cost_of  # noqa: E402

NSGA2_POPULATION = 10
"""Optuna's 50 are more than the trials there is time for, and the first generation is drawn at random."""


def main() -> None:
    """Searches until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sampler", choices=["tpe", "nsga2"], default="tpe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    script = Script(options.data, options.out, seed=options.seed, began=BEGAN)
    samplers = {
        "tpe": optuna.samplers.TPESampler(seed=options.seed),
        "nsga2": optuna.samplers.NSGAIISampler(population_size=NSGA2_POPULATION, seed=options.seed),
    }
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=samplers[options.sampler])

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        settings = suggest(trial)
        if not settings.fits():
            raise optuna.TrialPruned
        return script.make(settings, number=trial.number), math.log10(cost_of(settings.spec, square(64)).params)

    study.optimize(objective, timeout=options.seconds - (time.time() - BEGAN))


def suggest(trial: optuna.Trial) -> Settings:
    """The space of ``studies/pareto.yaml``, of losses those that torchdistill or torch have."""
    path = trial.suggest_categorical("path", PATHS)
    loss = trial.suggest_categorical("loss", ["kld", "mse"]) if path == "logits" else "mse"
    return Settings(
        width=trial.suggest_int("width", 4, 24, log=True),
        growth=trial.suggest_float("growth", 1, 2),
        depth=trial.suggest_int("depth", 3, 5),
        convs_per_stage=trial.suggest_int("convs_per_stage", 1, 2),
        conv=trial.suggest_categorical("conv", ["standard", "separable"]),
        path=path,
        loss=loss,
        weight=trial.suggest_float("weight", 0.2, 1.0) if path != "none" else 0.0,
        temperature=trial.suggest_float("temperature", 1, 6, log=True) if loss == "kld" else 1.0,
        learning_rate=trial.suggest_float("learning_rate", 2e-3, 1e-2, log=True),
    )


if __name__ == "__main__":
    main()
