"""The front of a study: the finished students that no other beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdsearch.config.search import Objective
from kdsearch.distill.record import Student
from kdsearch.front.dominance import non_dominated


def front_of(students: Sequence[Student], objectives: Sequence[Objective]) -> tuple[Student, ...]:
    """The non-dominated students, smallest first; ties stay in."""
    if not students:
        return ()
    losses = np.array([[_loss(student, objective) for objective in objectives] for student in students])
    members = [student for student, kept in zip(students, non_dominated(losses), strict=True) if kept]
    return tuple(sorted(members, key=lambda student: (student.scores.params, student.scores.macs, student.number)))


def _loss(student: Student, objective: Objective) -> float:
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
