"""Selection bias of a search, and how stable its front is if other images are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kdsearch.config.search import Objective
from kdsearch.front.dominance import loss_of
from kdsearch.statistics.resampling import DRAWS, LEVEL, SEED, Floats, Resampled, resample
from kdsearch.trials.record import Student

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """The Dice to expect on other images, of a choice among students that was made by these."""

    dice: float
    low: float
    high: float
    """The interval, at 95 %."""

    def __str__(self) -> str:
        """In %."""
        return f"{100 * self.dice:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What resampling the validation images says about one student."""

    stability: float
    """The fraction of resamples in which no other student is better, smaller and cheaper at once. It is no probability:
    resamples are centred on the very scores that chose the front, and other trainings are not in them."""
    corrected: Corrected
    """Of the rule "the best student no larger than this one", not of this very student."""


def standings(
    dice: Sequence[Floats], costs: Floats, groups: Sequence[str], *, draws: int = DRAWS, seed: int = SEED
) -> tuple[Standing, ...] | None:
    """Of M students: N Dice coefficients each, NaN where there is no lesion, and M×K costs, known exactly.

    On each draw of groups the best student no larger than a given one is chosen anew and scored on the groups that were
    left out, whose mean is the corrected Dice (bootstrap bias correction, Tsamardinos, Greasidou and Borboudakis 2018);
    the interval is the bootstrap's of the student chosen by all images, moved to it. Both speak of other images like
    these, not of other trainings. None where the images are too few to be resampled.
    """
    found = resample(np.stack(dice), groups, draws=draws, seed=seed)
    if found is None:
        return None
    no_larger: Bools = np.all(costs[:, None, :] <= costs[None, :, :], axis=2)
    smaller: Bools = no_larger & np.any(costs[:, None, :] < costs[None, :, :], axis=2)
    return tuple(
        Standing(
            stability=_survives(place, found.drawn, no_larger[:, place], smaller[:, place]),
            corrected=_corrected(found, no_larger[:, place]),
        )
        for place in range(len(costs))
    )


def _survives(place: int, drawn: Floats, no_larger: Bools, smaller: Bools) -> float:
    """In what fraction of the draws no student that is no larger dominates the one at that place."""
    own = drawn[place]
    beaten = np.zeros(len(own), dtype=np.bool_)
    if smaller.any():
        beaten |= drawn[smaller].max(axis=0) >= own
    beaten |= drawn[no_larger].max(axis=0) > own  # the student itself is among them and never better
    return float(1 - beaten.mean())


def _corrected(found: Resampled, among: Bools) -> Corrected:
    chosen = found.drawn[among].argmax(axis=0)
    corrected = float(found.left_out[among][chosen, np.arange(chosen.size)].mean())
    now = np.flatnonzero(among)[found.apparent[among].argmax()]
    around = np.quantile(found.drawn[now] - found.apparent[now], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Corrected(dice=corrected, low=corrected + float(around[0]), high=corrected + float(around[1]))


def selection_bias(dice: Sequence[Floats], groups: Sequence[str], *, seed: int = SEED) -> float:
    """By how much Dice the best of several students looks better than it is, because these images chose it.

    ``dice``: N coefficients for each student, NaN where there is no lesion; see ``standings``. 0 where the images
    are too few to say, or there was nothing to choose.
    """
    found = resample(np.stack(dice), groups, seed=seed) if len(dice) > 1 else None
    if found is None:
        return 0.0
    return float(found.apparent.max()) - _corrected(found, np.ones(len(dice), dtype=np.bool_)).dice


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
