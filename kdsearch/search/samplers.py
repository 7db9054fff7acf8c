"""Optuna's samplers by their names in a study file."""

from __future__ import annotations

import math
import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler

from kdsearch.config.search import SearchConfig

GOOD_SHARE = 0.25
"""Of the finished trials, those that TPE takes for good; Optuna's tenth is one or two in a study of this size."""
MOST_GOOD = 25


def build_sampler(config: SearchConfig, *, seed: int, unfinished: int = 0) -> BaseSampler:
    """The sampler; ``grid`` draws nothing itself, because the store names every choice for it.

    ``unfinished`` is how many trials a sampler would count as experience that were rejected or stopped.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # what the user asked for may be experimental
        warnings.filterwarnings("ignore", message=".*gamma.*deprecated", category=FutureWarning)  # until Optuna 6
        return _build(config, seed, unfinished)


def _build(config: SearchConfig, seed: int, unfinished: int) -> BaseSampler:
    match config.sampler:
        case "tpe":
            return TPESampler(
                seed=seed,
                n_startup_trials=config.startup_trials + unfinished,
                multivariate=True,
                group=True,
                gamma=lambda trials: min(math.ceil(GOOD_SHARE * max(0, trials - unfinished)), MOST_GOOD),
            )
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=config.startup_trials)
        case "nsga2":
            return NSGAIISampler(seed=seed, population_size=max(2, config.startup_trials))
        case "nsga3":
            return NSGAIIISampler(seed=seed, population_size=max(2, config.startup_trials))
        case "random" | "grid":
            return RandomSampler(seed=seed)
