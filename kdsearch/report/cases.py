"""Which validation images stand for easy, typical and hard ones: chosen by the teacher's Dice, not by the student's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

QUANTILES = (("easy", 0.95), ("easy", 0.80), ("typical", 0.60), ("typical", 0.40), ("hard", 0.20), ("hard", 0.05))
"""Of the teacher's Dice over the images with a lesion; neither its best nor its worst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One image that is shown."""

    position: int
    """In the validation split."""
    kind: str
    """``easy``, ``typical`` or ``hard``."""


def choose_cases(teacher_dice: npt.NDArray[np.float64]) -> tuple[Case, ...]:
    """Six images, or as many as hold a lesion, from the teacher's N Dice coefficients (NaN: no lesion)."""
    lesions = np.flatnonzero(~np.isnan(teacher_dice))
    order = lesions[np.argsort(teacher_dice[lesions], kind="stable")]
    found: dict[int, str] = {}
    for kind, quantile in QUANTILES if len(order) else ():
        found.setdefault(int(order[round(quantile * (len(order) - 1))]), kind)
    return tuple(Case(position=position, kind=kind) for position, kind in found.items())
