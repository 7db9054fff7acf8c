"""Which of several points beat which, and how much they cover together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from kdsearch.config.search import Limits, Objective
from kdsearch.trials.record import Student


def non_dominated(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """N, true for rows of N×M losses (smaller is better) that no row dominates; equal rows keep each other company.

    A row dominates another where it is nowhere larger and somewhere smaller.
    """
    keep = np.ones(len(losses), dtype=bool)
    for index, row in enumerate(losses):
        nowhere_larger = (losses <= row).all(axis=1)
        somewhere_smaller = (losses < row).any(axis=1)
        keep[index] = not (nowhere_larger & somewhere_smaller).any()
    return keep


def preference(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """N, the place of each row of N×M losses from 0: by non-dominated rank, then by crowding, lonelier rows first.

    Deb et al. 2002, as NSGA-II selects.
    """
    places = np.empty(len(losses), dtype=np.int64)
    left = np.arange(len(losses))
    taken = 0
    while len(left):
        best = non_dominated(losses[left])
        layer = left[best]
        order = layer[np.argsort(-crowding(losses[layer]), kind="stable")]
        places[order] = np.arange(taken, taken + len(order))
        taken += len(order)
        left = left[~best]
    return places


def crowding(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """N, how far each row's neighbours in each loss are apart, scaled to the loss's range; ends are infinitely far."""
    distance = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if spread > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distance


def hypervolume(points: Iterable[tuple[float, float]], *, most_params: float) -> float:
    """Area that points of (params, Dice) dominate, of Dice against log10 of parameters, from (``most_params``, 0).

    Points with more parameters than that add nothing.
    """
    area = best = 0.0
    for params, dice in sorted(points, key=lambda point: (point[0], -point[1])):
        if dice > best and params < most_params:
            area += (dice - best) * (math.log10(most_params) - math.log10(params))
            best = dice
    return area


def mean_best_by_size(
    params: npt.NDArray[np.int64], dice: npt.NDArray[np.float64], *, least: int, most: int
) -> npt.NDArray[np.float64]:
    """B means, over the logarithm of a size from ``least`` to ``most``, of the best Dice of those no larger.

    ``dice`` is M×B. Smaller than ``least`` counts as ``least``. The hypervolume of ``hypervolume``, by its width.
    """
    order = np.argsort(params, kind="stable")
    edges = np.log10(np.append(np.clip(params[order], least, most), most))
    best = np.maximum.accumulate(dice[order], axis=0)
    return np.asarray(np.diff(edges) @ best / (math.log10(most) - math.log10(least)))


def front_of(
    students: Sequence[Student], objectives: Sequence[Objective], limits: Limits | None = None
) -> tuple[Student, ...]:
    """The non-dominated of the students within the limits, smallest first; ties stay in."""
    students = [student for student in students if limits is None or is_within(student, limits)]
    if not students:
        return ()
    losses = np.array([[loss_of(student, objective) for objective in objectives] for student in students])
    members = [student for student, kept in zip(students, non_dominated(losses), strict=True) if kept]
    return tuple(sorted(members, key=lambda student: (student.scores.params, student.scores.macs, student.number)))


def is_within(student: Student, limits: Limits) -> bool:
    """Whether the student leaves empty images empty as often as the limits ask; sizes were checked before training."""
    return limits.min_specificity is None or (student.scores.overlap.specificity or 0.0) >= limits.min_specificity


def loss_of(student: Student, objective: Objective) -> float:
    """What the objective counts of the student, smaller being better."""
    match objective:
        case "dice":
            return -student.scores.dice
        case "params":
            return student.scores.params
        case "macs":
            return student.scores.macs
        case "latency_ms":
            assert student.scores.latency_ms is not None, "measured for every student of such a study"
            return student.scores.latency_ms
        case "specificity":
            assert student.scores.overlap.specificity is not None, "there are such images in such a study"
            return -student.scores.overlap.specificity
