"""How much of the room between small and good a set of students covers."""

from __future__ import annotations

import math
from collections.abc import Iterable


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
