"""Dominance, Pareto fronts and hypervolume."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from kdsearch.config.search import Limits, Objective
from kdsearch.trials.record import Student


def non_dominated(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Returns N booleans: whether each row of N×M losses (smaller is better) is dominated by no other row.

    A row dominates another if no loss is larger and at least one is smaller; equal rows do not dominate each other.
    """
    keep = np.ones(len(losses), dtype=bool)
    for index, row in enumerate(losses):
        nowhere_larger = (losses <= row).all(axis=1)
        somewhere_smaller = (losses < row).any(axis=1)
        keep[index] = not (nowhere_larger & somewhere_smaller).any()
    return keep


def preference(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Ranks rows of N×M losses from 0: by non-dominated rank, then by crowding distance, the largest first.

    This is the selection of NSGA-II (Deb et al. 2002).
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
    """Computes the N crowding distances of N×M losses (Deb et al. 2002); infinite for the extremes of each loss."""
    distance = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if spread > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distance


def hypervolume(points: Iterable[tuple[float, float]], *, most_params: float) -> float:
    """Computes the area that points (params, Dice) dominate above (``most_params``, 0), with params on a log10 axis.

    Points with more than ``most_params`` parameters add nothing.
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
    """Averages the best Dice up to a size over the logarithm of the size, from ``least`` to ``most`` parameters.

    ``dice`` is M×B; returns B means. Students smaller than ``least`` count as ``least``. Equals
    ``hypervolume`` divided by its width.
    """
    order = np.argsort(params, kind="stable")
    edges = np.log10(np.append(np.clip(params[order], least, most), most))
    best = np.maximum.accumulate(dice[order], axis=0)
    return np.asarray(np.diff(edges) @ best / (math.log10(most) - math.log10(least)))


def front_of(
    students: Sequence[Student], objectives: Sequence[Objective], limits: Limits | None = None
) -> tuple[Student, ...]:
    """Returns the non-dominated students within the limits, smallest first; ties are included."""
    students = [student for student in students if limits is None or is_within(student, limits)]
    if not students:
        return ()
    losses = np.array([[loss_of(student, objective) for objective in objectives] for student in students])
    members = [student for student, kept in zip(students, non_dominated(losses), strict=True) if kept]
    return tuple(sorted(members, key=lambda student: (student.scores.params, student.scores.macs, student.number)))


def is_within(student: Student, limits: Limits) -> bool:
    """Returns whether the student's specificity is within the limits; sizes are checked before training."""
    return limits.min_specificity is None or (student.scores.overlap.specificity or 0.0) >= limits.min_specificity


def loss_of(student: Student, objective: Objective) -> float:
    """Returns the student's value of the objective, negated if larger values are better."""
    match objective:
        case "dice":
            return -student.scores.dice
        case "params":
            return student.scores.params
        case "macs":
            return student.scores.macs
        case "latency_ms":
            assert student.scores.latency_ms is not None, "a study with this objective measures it for every student"
            return student.scores.latency_ms
        case "specificity":
            assert student.scores.overlap.specificity is not None, "a study with this objective has negative images"
            return -student.scores.overlap.specificity
