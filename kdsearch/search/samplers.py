"""Optuna's samplers by their names in a study file."""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler

from kdsearch.config.search import SearchConfig


def build_sampler(config: SearchConfig, *, seed: int) -> BaseSampler:
    """The sampler; ``grid`` draws nothing itself, because the store names every choice for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # NSGA-III is what the user asked for
        return _build(config, seed)


def _build(config: SearchConfig, seed: int) -> BaseSampler:
    match config.sampler:
        case "tpe":
            return TPESampler(seed=seed, n_startup_trials=config.startup_trials)
        case "nsga2":
            return NSGAIISampler(seed=seed, population_size=max(2, config.startup_trials))
        case "nsga3":
            return NSGAIIISampler(seed=seed, population_size=max(2, config.startup_trials))
        case "random" | "grid":
            return RandomSampler(seed=seed)
