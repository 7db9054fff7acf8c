"""Pruners by their names in a study file."""

from __future__ import annotations

from functools import partial

from kdsearch.config.pruning import PruningConfig
from kdsearch.search.pruners.halving import Halving
from kdsearch.search.pruners.pruner import ByStart, NoPruner, Pruner
from kdsearch.search.pruners.reach import Reach
from kdsearch.search.pruners.single import SingleObjectivePruner


def build_pruner(config: PruningConfig) -> Pruner:
    """The pruner of that name, which compares trials with those that began as they did."""
    return ByStart(partial(_build, config))


def _build(config: PruningConfig) -> Pruner:
    match config.pruner:
        case "none":
            return NoPruner()
        case "reach":
            return Reach(config)
        case "halving":
            return Halving(config)
        case _:
            return SingleObjectivePruner(config)
