"""Warns if the teacher is no better than students that were trained without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from kdsearch.statistics.confirmation import Confirmation
from kdsearch.statistics.resampling import Difference, simultaneous_differences
from kdsearch.trials.record import Student
from kdsearch.trials.scores import Scores

LITTLE_TO_LEARN = (
    "distillation has little to offer here; try a stronger teacher: larger images, longer training or a bigger network"
)
LITTLE = 0.02
"""Distillation has little to offer if the teacher is certainly less than this much better, in Dice."""


def no_better_than_plain(
    students: Iterable[Student], teacher: Scores | None, groups: Sequence[int] | None = None
) -> str:
    """A warning if the search's best undistilled student scores at least as well as the teacher, else empty.

    ``groups`` are those of the validation images. The best of many students looks better than it is, so the interval
    of its difference to the teacher covers the choice among all of them.
    """
    plain = [student for student in students if student.recipe.distillation is None]
    best = max(plain, key=lambda student: student.scores.dice, default=None)
    if teacher is None or best is None or best.scores.dice < teacher.dice:
        return ""
    scores = (
        f"The teacher ({100 * teacher.dice:.1f} % Dice) scores no better than trial {best.number} "
        f"({100 * best.scores.dice:.1f} %), which was trained without it"
    )
    behind = _behind(teacher, plain, best, groups)
    if behind is None:
        return f"{scores}. Whether it is better on new images is unknown."
    most = behind.mean + behind.half_width
    if most < LITTLE:
        return f"{scores}: {LITTLE_TO_LEARN}."
    return f"{scores}. On new images it may be up to {100 * most:.1f} Dice points better."


def _behind(
    teacher: Scores, plain: Sequence[Student], best: Student, groups: Sequence[int] | None
) -> Difference | None:
    """The teacher minus the best student; None if the Dice of each image was not stored."""
    kept = [teacher.per_image, *(student.scores.per_image for student in plain)]
    dice = [np.array(one.dice) for one in kept if one is not None]
    if len(dice) < len(kept) or len({one.size for one in dice}) > 1:
        return None
    names = [str(group) for group in (groups if groups is not None else range(dice[0].size))]
    others = [1 + next(place for place, student in enumerate(plain) if student.number == best.number)]
    (found,) = simultaneous_differences(dice, names, chosen=0, others=others)
    return found


def confirmed_no_better(found: Confirmation) -> str:
    """A warning if the teacher is not significantly better than the best undistilled network, else empty.

    It says that distillation has little to offer only if the teacher is certainly less than 2 points better; an
    inconclusive difference is no evidence for that.
    """
    plain = [arm for arm in found.arms if arm.path == "none"]
    best = max(plain, key=lambda arm: arm.dice.mean, default=None)
    if best is None or best.minus_teacher is None or best.minus_teacher.high < 0:
        return ""
    start = (
        f"The teacher is not significantly better than {'the ' * (best.role == 'twin')}{best.name}, which was trained "
        f"without it (Dice minus the teacher's: {best.minus_teacher} points)"
    )
    most = min(1.0, -best.minus_teacher.low)
    if most < LITTLE:
        return f"{start}: {LITTLE_TO_LEARN}."
    return f"{start}. It may still be up to {100 * most:.1f} points better."
