"""The front of a study: the finished students that no other beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdsearch.config.search import Limits, Objective
from kdsearch.front.dominance import non_dominated
from kdsearch.trials.record import Student


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
    return limits.empty_share is None or (student.scores.overlap.empty_share or 0.0) >= limits.empty_share


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
        case "empty_share":
            assert student.scores.overlap.empty_share is not None, "there are such images in such a study"
            return -student.scores.overlap.empty_share
