"""The ``search.pruning`` section: which trials are stopped before their last epoch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kdsearch.config.ranges import Section

PrunerName = Literal["none", "reach", "halving", "median", "percentile", "successive_halving", "hyperband"]
OPTUNAS_OWN: tuple[PrunerName, ...] = ("median", "percentile", "successive_halving", "hyperband")
"""Optuna's pruners, which know one objective."""
RANKED_ON_ARRIVAL: tuple[PrunerName, ...] = ("successive_halving", "hyperband")
"""Those that compare with trials still running, so that their verdicts depend on who is faster."""


def named(value: object) -> object:
    """A pruner's name alone stands for that pruner with its defaults."""
    return {"pruner": value} if isinstance(value, str) else value


class PruningConfig(Section):
    """Which trials are stopped before their last epoch."""

    pruner: PrunerName = "none"
    """``reach`` and ``halving`` serve any objectives and compare a student with none larger; Optuna's own need
    ``objectives: [dice]``."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 2
    """Epochs every trial may train before it can be stopped."""
    finished_trials: Annotated[int, Field(ge=1)] = 3
    """Trials that must have finished before any is stopped."""
    optimism: Annotated[float, Field(ge=0, le=1)] = 0.8
    """``reach``: a trial is trusted to gain as much as the one at this quantile of the finished trials did from the
    same epoch on; nearer to 1 stops fewer."""
