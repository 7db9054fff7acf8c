"""When a trial is stopped early."""

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
    """One trial's way so far."""

    number: int
    params: int
    macs: int
    dice: tuple[float, ...]
    """Validation Dice after each epoch, 0-1."""
    epochs: int
    """Most epochs there can be."""
    finished: bool
    """Whether it was trained to its end."""
    inherited: bool = False
    """Whether it began with another student's weights."""

    @property
    def best(self) -> float:
        """The best Dice so far; what counts in the end, because the best epoch's weights are kept."""
        return max(self.dice)

    def until(self, epoch: int) -> float:
        """The best Dice of the first epochs."""
        return max(self.dice[:epoch])

    def no_larger_than(self, other: LearningCurve) -> bool:
        """Neither in parameters nor in multiply-adds."""
        return self.params <= other.params and self.macs <= other.macs


class Pruner(Protocol):
    """Decides, after each epoch of a trial, whether it stops."""

    def observe(self, curve: LearningCurve) -> None:
        """Takes notice of a trial, in the place of what was known of it."""
        ...

    def stops(self, curve: LearningCurve) -> str:
        """Why the trial stops after its last epoch so far; empty where it continues."""
        ...


class NoPruner:
    """Lets every trial train to its end."""

    def observe(self, curve: LearningCurve) -> None:
        """Takes no notice."""

    def stops(self, curve: LearningCurve) -> str:  # noqa: ARG002 - the contract's name
        """Never."""
        return ""


class ByStart:
    """A pruner for students that began cold and one for those that inherited, which learn on other curves."""

    def __init__(self, build: Callable[[], Pruner]) -> None:
        self._pruners = {inherited: build() for inherited in (False, True)}

    def observe(self, curve: LearningCurve) -> None:
        """Takes notice of a trial, among those that began as it did."""
        self._pruners[curve.inherited].observe(curve)

    def stops(self, curve: LearningCurve) -> str:
        """What the pruner of those says that began as the trial did."""
        return self._pruners[curve.inherited].stops(curve)


def curve_of_job(job: Job, curve: tuple[EpochReport, ...]) -> LearningCurve:
    """A running trial as a pruner sees it."""
    assert job.cost is not None, "a student's is known"
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
    """An ended trial as a pruner sees it; None where it never trained an epoch."""
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
    """A trial stops when a finished one, no larger than itself, is out of its reach by more than the margin.

    Its reach is its best Dice so far plus the gain that only a fraction of ``1 - quantile`` of the finished trials
    exceeded from the same part of their training on; the margin is for the noise of both. Whoever ends behind a student
    that is no larger in any way is not on the front, so size never tells against a trial; and how late students still
    improve is learnt from the study.
    """

    def __init__(self, config: PruningConfig) -> None:
        self._warmup, self._least_finished = config.warmup_epochs, config.finished_trials
        self._quantile, self._margin = config.quantile, config.margin
        self._finished: dict[int, LearningCurve] = {}

    def observe(self, curve: LearningCurve) -> None:
        """Takes notice of a trial that was trained to its end."""
        if curve.finished:
            self._finished[curve.number] = curve

    def stops(self, curve: LearningCurve) -> str:
        """Why the trial stops after its last epoch so far; empty while it can still get to the front."""
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
            f"its reach of {100 * reach:.1f} % Dice is {100 * (rival.best - reach):.1f} points below the "
            f"{100 * rival.best:.1f} % of trial {rival.number}, which is no larger"
        )


REDUCTION = 2
"""One trial in this many continues from a rung."""


class Halving:
    """At each rung a trial continues if it is in the better half of those no larger than itself.

    Trials are ranked by (Dice at the rung, parameters, multiply-adds): non-dominated rank first, then crowding
    (MO-ASHA, Schmucker et al. 2021). That only trials no larger count is kdsearch's own: a large student is not stopped
    for learning more slowly than small ones have, but for not being better than they are by now.
    """

    def __init__(self, config: PruningConfig) -> None:
        self._warmup, self._least_finished = config.warmup_epochs, config.finished_trials
        self._curves: dict[int, LearningCurve] = {}

    def observe(self, curve: LearningCurve) -> None:
        """Takes notice of a trial, running or ended."""
        self._curves[curve.number] = curve

    def stops(self, curve: LearningCurve) -> str:
        """Why the trial does not pass the rung its last epoch is; empty between rungs."""
        epoch = len(curve.dice)
        others = [other for other in self._curves.values() if other.number != curve.number]
        if not is_rung(epoch, first=self._warmup + 1) or sum(o.finished for o in others) < self._least_finished:
            return ""
        rivals = [other for other in others if len(other.dice) >= epoch and other.no_larger_than(curve)]
        losses = np.array([[-rival.until(epoch), rival.params, rival.macs] for rival in (curve, *rivals)])
        place = int(preference(losses)[0])
        if place < math.ceil(len(losses) / REDUCTION):
            return ""
        return f"place {place + 1} of {len(losses)} among students no larger"


def is_rung(epoch: int, *, first: int) -> bool:
    """Whether the epoch is ``first`` times a power of the reduction."""
    while first < epoch:
        first *= REDUCTION
    return first == epoch


NAME = "mirror"
"""Always the same, because Hyperband sorts trials into brackets by a hash of it."""


class SingleObjectivePruner:
    """Asks an Optuna pruner over a study in memory that mirrors the trials' curves."""

    def __init__(self, config: PruningConfig) -> None:
        self._name = config.pruner
        with quiet_optuna():
            self._study = optuna.create_study(study_name=NAME, direction="maximize", pruner=_optuna_pruner(config))
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


def _optuna_pruner(config: PruningConfig) -> BasePruner:
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
