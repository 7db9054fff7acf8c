"""Asynchronous successive halving for several objectives, fair to size."""

from __future__ import annotations

import math

import numpy as np

from kdsearch.config.pruning import PruningConfig
from kdsearch.front.dominance import preference
from kdsearch.search.pruners.pruner import LearningCurve

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
