"""Says where a teacher has nothing to teach."""

from __future__ import annotations

from collections.abc import Iterable

from kdsearch.statistics.confirmation import Confirmation
from kdsearch.trials.record import Student
from kdsearch.trials.scores import Scores

LITTLE_TO_LEARN = "there is little to learn from it; a stronger teacher sees larger images, trains longer, or is larger"


def no_better_than_plain(students: Iterable[Student], teacher: Scores | None) -> str:
    """That the search's best student without distillation is as good as the teacher; empty where it is not so."""
    plain = [student for student in students if student.recipe.distillation is None]
    best = max(plain, key=lambda student: student.scores.dice, default=None)
    if teacher is None or best is None or best.scores.dice < teacher.dice:
        return ""
    return _sentence(f"trial {best.number}", best.scores.dice, teacher.dice)


def confirmed_no_better(found: Confirmation) -> str:
    """That it is not shown to be better than the best plain student or twin, out of fold; empty where it is."""
    plain = [arm for arm in found.arms if arm.path == "none"]
    best = max(plain, key=lambda arm: arm.dice.mean, default=None)
    if best is None or best.minus_teacher is None or best.minus_teacher.high < 0:
        return ""
    return (
        f"The teacher is not shown to be better than {best.name}, which learnt from masks alone and differs from it by "
        f"{best.minus_teacher} points: {LITTLE_TO_LEARN}."
    )


def _sentence(name: str, dice: float, teacher: float) -> str:
    return (
        f"The teacher ({100 * teacher:.1f} % Dice) scores no better than {name} ({100 * dice:.1f} %), which learnt "
        f"from masks alone: {LITTLE_TO_LEARN}."
    )
