"""How a study's students stand, from what is stored of them: no training, no weights, no images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from kdsearch.config.search import Objective
from kdsearch.front.members import loss_of
from kdsearch.statistics.selection import Standing, standings
from kdsearch.trials.record import Student

Standings: TypeAlias = Mapping[int, Standing]
"""By trial."""
NOTHING_KNOWN: Standings = MappingProxyType({})


def standing_metrics(standings: Standings, number: int) -> dict[str, float]:
    """A student's standing as figures by name; none where it is not known."""
    if number not in standings:
        return {}
    standing = standings[number]
    corrected = standing.corrected
    return {
        "corrected_dice": corrected.dice,
        "corrected_dice_low": corrected.low,
        "corrected_dice_high": corrected.high,
        "front_stability": standing.stability,
    }


def standings_of(
    students: Sequence[Student], objectives: Sequence[Objective], groups: Sequence[int] | Sequence[str] | None
) -> dict[int, Standing]:
    """Of each student, for the front of these objectives; all but Dice are taken as known exactly.

    ``groups`` are of the validation images; where they are unknown, each image is taken for itself. Empty where Dice is
    no objective, where the students were stored before each image's Dice was, or where the images are too few.
    """
    kept = [student.scores.per_image for student in students]
    dice = [np.array(one.dice) for one in kept if one is not None]
    if "dice" not in objectives or not students or len(dice) < len(students):
        return {}
    others = [objective for objective in objectives if objective != "dice"]
    costs = np.array([[loss_of(student, objective) for objective in others] for student in students], dtype=float)
    names = [str(group) for group in (groups if groups is not None else range(len(dice[0])))]
    found = standings(dice, costs.reshape(len(students), len(others)), names)
    return {} if found is None else {student.number: one for student, one in zip(students, found, strict=True)}
