"""Optuna's own pruners, for studies whose one objective is Dice."""

from __future__ import annotations

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, PercentilePruner, SuccessiveHalvingPruner
from optuna.trial import TrialState

from kdsearch.config.pruning import PruningConfig
from kdsearch.search.pruners.pruner import LearningCurve
from kdsearch.search.storage import quiet_optuna

NAME = "mirror"
"""Always the same, because Hyperband sorts trials into brackets by a hash of it."""


class SingleObjectivePruner:
    """Asks an Optuna pruner over a study in memory that mirrors the trials' curves."""

    def __init__(self, config: PruningConfig) -> None:
        self._name = config.pruner
        with quiet_optuna():
            self._study = optuna.create_study(study_name=NAME, direction="maximize", pruner=_build(config))
        self._running: dict[int, optuna.Trial] = {}
        self._reported: dict[int, int] = {}
        self._ended: set[int] = set()

    def observe(self, curve: LearningCurve) -> None:
        """Tells the mirror of a trial's end; one that ended before this pruner was made is lived through again."""
        if curve.number in self._ended:
            return
        if curve.number not in self._running:
            for epoch in range(1, len(curve.dice) + 1):
                self._verdict(curve, until=epoch)
            self._end(curve.number, curve.best if curve.finished else None)
        elif curve.finished:
            self._end(curve.number, curve.best)

    def stops(self, curve: LearningCurve) -> str:
        """What Optuna's pruner says."""
        if not self._verdict(curve, until=len(curve.dice)):
            return ""
        self._end(curve.number, None)
        return f"Optuna's {self._name} pruner"

    def _verdict(self, curve: LearningCurve, *, until: int) -> bool:
        trial = self._running.get(curve.number)
        if trial is None:
            trial = self._running[curve.number] = self._study.ask()
        known = self._reported.get(curve.number, 0)
        for epoch in range(known + 1, until + 1):
            trial.report(curve.dice[epoch - 1], epoch)
            self._reported[curve.number] = epoch
        return trial.should_prune()

    def _end(self, number: int, dice: float | None) -> None:
        state = TrialState.PRUNED if dice is None else TrialState.COMPLETE
        self._study.tell(self._running.pop(number), dice, state=state)
        self._ended.add(number)


def _build(config: PruningConfig) -> BasePruner:
    first = config.warmup_epochs + 1  # the first epoch after which a trial may stop, as Optuna counts steps
    match config.pruner:
        case "median":
            return MedianPruner(n_startup_trials=config.finished_trials, n_warmup_steps=first)
        case "percentile":
            return PercentilePruner(25.0, n_startup_trials=config.finished_trials, n_warmup_steps=first)
        case "successive_halving":
            return SuccessiveHalvingPruner(min_resource=first)
        case "hyperband":
            return HyperbandPruner(min_resource=first)
        case _:
            raise AssertionError(config.pruner)
