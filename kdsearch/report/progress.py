"""How a search went, figure by figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdsearch.front.dominance import hypervolume
from kdsearch.trials.record import TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What was covered after a trial had ended."""

    trials: int
    """Ended by then, rejected ones aside."""
    compute_s: float
    """Seconds of training by then, all workers together, stopped and failed trials included."""
    hypervolume: float


def steps_of(records: Sequence[TrialRecord], *, most_params: float) -> tuple[Step, ...]:
    """A step for each trial, in the order in which they ended; see ``front.hypervolume`` for ``most_params``."""
    ended = [record for record in records if record.outcome not in ("rejected", "running")]
    ended.sort(
        key=lambda record: (record.ended is None, record.ended.timestamp() if record.ended else 0, record.number)
    )
    points: list[tuple[float, float]] = []
    compute = 0.0
    steps = []
    for index, record in enumerate(ended, start=1):
        compute += record.curve[-1].seconds if record.curve else 0.0
        if record.scores is not None:
            points.append((record.scores.params, record.scores.dice))
        steps.append(Step(trials=index, compute_s=compute, hypervolume=hypervolume(points, most_params=most_params)))
    return tuple(steps)


def reference_size(records: Sequence[TrialRecord], limit: int | None) -> float:
    """The hypervolume's reference: the limit on parameters, or the power of ten above the largest student."""
    if limit is not None:
        return float(limit)
    sizes = [record.scores.params for record in records if record.scores is not None]
    return float(10 ** len(str(max(sizes, default=1))))
