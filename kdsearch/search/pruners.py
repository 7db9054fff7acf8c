"""Pruners, which decide after each epoch whether a trial stops early."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, PercentilePruner, SuccessiveHalvingPruner
from optuna.trial import TrialState

from kdsearch.campaign.storage import quiet_optuna
from kdsearch.config.search import PruningConfig
from kdsearch.front.dominance import preference
from kdsearch.trials.record import EpochReport, TrialRecord, trial_of_job
from kdsearch.workers.jobs import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """The epochs of one trial so far."""

    number: int
    params: int
    macs: int
    dice: tuple[float, ...]
    """Validation Dice after each epoch, 0-1."""
    epochs: int
    """Maximum number of epochs."""
    finished: bool
    """Whether training finished without being stopped."""
    inherited: bool = False
    """Whether the student inherited weights."""

    @property
    def best(self) -> float:
        """The best Dice so far, which counts because the best epoch's weights are kept."""
        return max(self.dice)

    def until(self, epoch: int) -> float:
        """The best Dice up to an epoch."""
        return max(self.dice[:epoch])

    def no_larger_than(self, other: LearningCurve) -> bool:
        """Whether it has at most the other's parameters and multiply-adds."""
        return self.params <= other.params and self.macs <= other.macs


class Pruner(Protocol):
    """Decides after each epoch of a trial whether it stops."""

    def observe(self, curve: LearningCurve) -> None:
        """Stores a trial's curve and replaces its earlier one."""
        ...

    def stops(self, curve: LearningCurve) -> str:
        """Why the trial stops after its last epoch so far; empty if it continues."""
        ...


class NoPruner:
    """Never stops a trial."""

    def observe(self, curve: LearningCurve) -> None:
        """Does nothing."""

    def stops(self, curve: LearningCurve) -> str:  # noqa: ARG002 - the protocol's name
        return ""


class ByStart:
    """Separate pruners for students from scratch and with inherited weights, whose learning curves differ."""

    def __init__(self, build: Callable[[], Pruner]) -> None:
        self._pruners = {inherited: build() for inherited in (False, True)}

    def observe(self, curve: LearningCurve) -> None:
        self._pruners[curve.inherited].observe(curve)

    def stops(self, curve: LearningCurve) -> str:
        return self._pruners[curve.inherited].stops(curve)


def curve_of_job(job: Job, curve: tuple[EpochReport, ...]) -> LearningCurve:
    """The learning curve of a running trial."""
    assert job.cost is not None, "the cost of a student is known"
    return LearningCurve(
        number=trial_of_job(job.id),
        params=job.cost.params,
        macs=job.cost.macs,
        dice=tuple(report.dice for report in curve),
        epochs=job.student.training.epochs,
        finished=False,
        inherited=job.student.start is not None,
    )


def learning_curve_of(record: TrialRecord) -> LearningCurve | None:
    """The learning curve of an ended trial; None if it has no epochs."""
    cost = record.scores or record.cost
    if cost is None or record.recipe is None or not record.curve:
        return None
    return LearningCurve(
        number=record.number,
        params=cost.params,
        macs=cost.macs,
        dice=tuple(report.dice for report in record.curve),
        epochs=record.recipe.training.epochs,
        finished=record.outcome == "finished",
        inherited=record.recipe.start is not None,
    )


class Reach:
    """Stops a trial if a finished one of at most its size exceeds its reach by more than the margin.

    Its reach is its best Dice so far plus a gain: the ``quantile`` of the finished trials' gains after the same
    fraction of their training. The margin allows for noise. A trial is compared only with students of at most its size,
    because one that is worse than those cannot be on the front; it is never stopped for being large.
    """

    def __init__(self, config: PruningConfig) -> None:
        self._warmup, self._least_finished = config.warmup_epochs, config.finished_trials
        self._quantile, self._margin = config.quantile, config.margin
        self._finished: dict[int, LearningCurve] = {}

    def observe(self, curve: LearningCurve) -> None:
        if curve.finished:
            self._finished[curve.number] = curve

    def stops(self, curve: LearningCurve) -> str:
        """Why the trial stops after its last epoch so far; empty if it can still reach the front."""
        others = [other for other in self._finished.values() if other.number != curve.number]
        rivals = [other for other in others if other.no_larger_than(curve)]
        if len(curve.dice) <= self._warmup or len(others) < self._least_finished or not rivals:
            return ""
        rival = max(rivals, key=lambda other: other.best)
        if curve.best >= rival.best:
            return ""
        trained = len(curve.dice) / curve.epochs
        gains = [other.best - other.until(max(1, round(trained * other.epochs))) for other in others]
        reach = curve.best + float(np.quantile(gains, self._quantile))
        if reach >= rival.best - self._margin:
            return ""
        return (
            f"its expected {100 * reach:.1f} % Dice is {100 * (rival.best - reach):.1f} points below the "
            f"{100 * rival.best:.1f} % of trial {rival.number}, which is at most as large"
        )


REDUCTION = 2
"""At each rung, one trial in this many continues."""


class Halving:
    """Stops a trial at a rung unless it is in the better half of the trials of at most its size.

    Trials are ranked by (Dice at the rung, parameters, multiply-adds): first by non-dominated rank, then by crowding
    (MO-ASHA, Schmucker et al. 2021). Unlike in MO-ASHA, a trial is compared only with trials of at most its size, so a
    small student is never stopped because larger ones score higher.
    """

    def __init__(self, config: PruningConfig) -> None:
        self._warmup, self._least_finished = config.warmup_epochs, config.finished_trials
        self._curves: dict[int, LearningCurve] = {}

    def observe(self, curve: LearningCurve) -> None:
        self._curves[curve.number] = curve

    def stops(self, curve: LearningCurve) -> str:
        """Why the trial stops at the rung of its last epoch; empty between rungs."""
        epoch = len(curve.dice)
        others = [other for other in self._curves.values() if other.number != curve.number]
        if not is_rung(epoch, first=self._warmup + 1) or sum(o.finished for o in others) < self._least_finished:
            return ""
        rivals = [other for other in others if len(other.dice) >= epoch and other.no_larger_than(curve)]
        losses = np.array([[-rival.until(epoch), rival.params, rival.macs] for rival in (curve, *rivals)])
        rank = int(preference(losses)[0])
        if rank < math.ceil(len(losses) / REDUCTION):
            return ""
        return f"rank {rank + 1} of {len(losses)} among students of at most its size"


def is_rung(epoch: int, *, first: int) -> bool:
    """Whether the epoch is ``first`` times a power of the reduction."""
    while first < epoch:
        first *= REDUCTION
    return first == epoch


NAME = "mirror"
"""A constant, because Hyperband assigns trials to brackets by a hash of the study's name."""


class SingleObjectivePruner:
    """Applies an Optuna pruner to an in-memory study that mirrors the trials' curves."""

    def __init__(self, config: PruningConfig) -> None:
        self._name = config.pruner
        with quiet_optuna():
            self._study = optuna.create_study(study_name=NAME, direction="maximize", pruner=_optuna_pruner(config))
        self._running: dict[int, optuna.Trial] = {}
        self._reported: dict[int, int] = {}
        self._ended: set[int] = set()

    def observe(self, curve: LearningCurve) -> None:
        """Ends a trial in the mirror; replays it if it ended before this pruner was created."""
        if curve.number in self._ended:
            return
        if curve.number not in self._running:
            for epoch in range(1, len(curve.dice) + 1):
                self._verdict(curve, until=epoch)
            self._end(curve.number, curve.best if curve.finished else None)
        elif curve.finished:
            self._end(curve.number, curve.best)

    def stops(self, curve: LearningCurve) -> str:
        """Names Optuna's pruner if it stops the trial."""
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


def _optuna_pruner(config: PruningConfig) -> BasePruner:
    first = config.warmup_epochs + 1  # in Optuna's steps, the first epoch after which a trial may stop
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


def build_pruner(config: PruningConfig) -> Pruner:
    """Builds the configured pruner, which compares only trials with the same start."""
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
