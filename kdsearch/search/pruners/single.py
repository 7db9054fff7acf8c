"""Optuna's own pruners, for studies whose one objective is Dice."""

from __future__ import annotations

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, PercentilePruner, SuccessiveHalvingPruner
from optuna.trial import TrialState, create_trial

from kdsearch.config.pruning import PruningConfig
from kdsearch.search.pruners.course import Course


class SingleObjectivePruner:
    """Asks an Optuna pruner over a study in memory that mirrors the trials' curves."""

    def __init__(self, config: PruningConfig) -> None:
        self._name = config.pruner
        self._study = optuna.create_study(direction="maximize", pruner=_build(config))
        self._running: dict[int, optuna.Trial] = {}
        self._reported: dict[int, int] = {}
        self._ended: set[int] = set()

    def observe(self, course: Course) -> None:
        """Optuna's pruners learn from trials that ended."""
        if not course.finished or course.number in self._ended:
            return
        self._ended.add(course.number)
        trial = self._running.pop(course.number, None)
        if trial is not None:
            self._study.tell(trial, course.best)
            return
        values = dict(enumerate(course.dice, start=1))
        self._study.add_trial(create_trial(state=TrialState.COMPLETE, value=course.best, intermediate_values=values))

    def stops(self, course: Course) -> str:
        """What Optuna's pruner says."""
        trial = self._running.get(course.number)
        if trial is None:
            trial = self._running[course.number] = self._study.ask()
        known = self._reported.get(course.number, 0)
        for epoch, dice in enumerate(course.dice[known:], start=known + 1):
            trial.report(dice, epoch)
            self._reported[course.number] = epoch
        if not trial.should_prune():
            return ""
        self._study.tell(self._running.pop(course.number), state=TrialState.PRUNED)
        self._ended.add(course.number)
        return f"Optuna's {self._name} pruner"


def _build(config: PruningConfig) -> BasePruner:
    match config.pruner:
        case "median":
            return MedianPruner(n_startup_trials=config.finished_trials, n_warmup_steps=config.warmup_epochs)
        case "percentile":
            return PercentilePruner(25.0, n_startup_trials=config.finished_trials, n_warmup_steps=config.warmup_epochs)
        case "successive_halving":
            return SuccessiveHalvingPruner(min_resource=max(1, config.warmup_epochs))
        case "hyperband":
            return HyperbandPruner(min_resource=max(1, config.warmup_epochs))
        case _:
            raise AssertionError(config.pruner)
