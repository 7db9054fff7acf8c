"""Stops what has no chance left, judged by how much finished trials gained from the same epoch on."""

from __future__ import annotations

import numpy as np

from kdsearch.config.pruning import PruningConfig
from kdsearch.search.pruners.course import Course


class Reach:
    """A trial stops when a finished one, no larger than itself, is out of its reach by more than the margin.

    Its reach is its best Dice so far plus the gain that only a share of ``1 - optimism`` of the finished trials
    exceeded from the same part of their training on; the margin is for the noise of both. Whoever ends behind a student
    that is no larger in any way is not on the front, so size never tells against a trial; and how late students still
    improve is learnt from the study.
    """

    def __init__(self, config: PruningConfig) -> None:
        self._warmup, self._least_finished = config.warmup_epochs, config.finished_trials
        self._optimism, self._margin = config.optimism, config.margin
        self._finished: dict[int, Course] = {}

    def observe(self, course: Course) -> None:
        """Takes notice of a trial that was trained to its end."""
        if course.finished:
            self._finished[course.number] = course

    def stops(self, course: Course) -> str:
        """Why the trial stops after its last epoch so far; empty while it can still get to the front."""
        others = [other for other in self._finished.values() if other.number != course.number]
        rivals = [other for other in others if other.no_larger_than(course)]
        if len(course.dice) <= self._warmup or len(others) < self._least_finished or not rivals:
            return ""
        rival = max(rivals, key=lambda other: other.best)
        if course.best >= rival.best:
            return ""
        share = len(course.dice) / course.epochs
        gains = [other.best - other.until(max(1, round(share * other.epochs))) for other in others]
        reach = course.best + float(np.quantile(gains, self._optimism))
        if reach >= rival.best - self._margin:
            return ""
        return (
            f"its reach of {100 * reach:.1f} % Dice is {100 * (rival.best - reach):.1f} points below the "
            f"{100 * rival.best:.1f} % of trial {rival.number}, which is no larger"
        )
