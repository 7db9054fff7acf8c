"""Stops what has no chance left, judged by how much finished trials gained from the same epoch on."""

from __future__ import annotations

import numpy as np

from kdsearch.config.pruning import PruningConfig
from kdsearch.search.pruners.pruner import LearningCurve


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
