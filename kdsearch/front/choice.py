"""Chooses a student within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdsearch.distill.record import Student


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a student may cost and must reach."""

    params: int | None = None
    """Most parameters."""
    macs: int | None = None
    """Most multiply-adds for one image."""
    min_dice: float | None = None
    """Least Dice, 0-1."""

    def excess(self, student: Student) -> float:
        """How far outside the budget the student is, as the largest relative excess; zero within."""
        scores = student.scores
        over = [0.0]
        if self.params is not None:
            over.append(scores.params / self.params - 1)
        if self.macs is not None:
            over.append(scores.macs / self.macs - 1)
        if self.min_dice is not None:
            over.append((self.min_dice - scores.dice) / max(self.min_dice, 1e-9))
        return max(over)

    def __str__(self) -> str:
        parts = [f"params ≤ {self.params:,}" if self.params is not None else ""]
        parts.append(f"macs ≤ {self.macs:,}" if self.macs is not None else "")
        parts.append(f"dice ≥ {self.min_dice:g}" if self.min_dice is not None else "")
        return ", ".join(part for part in parts if part) or "no budget"


def best_within(students: Sequence[Student], budget: Budget) -> Student | None:
    """The student of the best Dice within the budget, the smaller one of equals; None where there is none."""
    within = [student for student in students if budget.excess(student) <= 0]
    return max(within, key=lambda s: (s.scores.dice, -s.scores.params, -s.scores.macs, -s.number), default=None)


def nearest_to(students: Sequence[Student], budget: Budget) -> Student | None:
    """The student that misses the budget by least; None where there are no students."""
    return min(students, key=lambda student: (budget.excess(student), -student.scores.dice), default=None)
