"""Selection bias of a search, and stability of its front under resampling of images."""

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
    """The Dice to expect on new images, corrected for choosing among students by these images."""

    dice: float
    low: float
    high: float
    """The ends of the 95 % interval."""

    def __str__(self) -> str:
        """Returns percentages."""
        return f"{100 * self.dice:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Results for one student of resampling the validation images."""

    stability: float
    """Fraction of resamples in which no other student dominates this one. It is not a probability: resamples are
    centered on the scores that chose the front, and do not include training variance."""
    corrected: Corrected
    """Describes the rule "the best student up to this size", not this particular student."""


def standings(
    dice: Sequence[Floats], costs: Floats, groups: Sequence[str], *, draws: int = DRAWS, seed: int = SEED
) -> tuple[Standing, ...] | None:
    """Computes the standing of M students from N Dice coefficients each (NaN: negative image) and M×K exact costs.

    For each draw of groups, the best student up to a given size is chosen and scored on the groups that were
    not drawn. The mean of these scores is the corrected Dice (bootstrap bias correction, Tsamardinos,
    Greasidou and Borboudakis 2018). Its interval is the bootstrap interval of the student chosen by all
    images, shifted to the corrected Dice. Both cover new images of the same kind, but not training variance.
    Returns None if the images are too few to resample.
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
    """Returns the fraction of draws in which no student up to the same size dominates the one at ``place``."""
    own = drawn[place]
    beaten = np.zeros(len(own), dtype=np.bool_)
    if smaller.any():
        beaten |= drawn[smaller].max(axis=0) >= own
    beaten |= drawn[no_larger].max(axis=0) > own  # includes the student itself, which is never better
    return float(1 - beaten.mean())


def _corrected(found: Resampled, among: Bools) -> Corrected:
    chosen = found.drawn[among].argmax(axis=0)
    corrected = float(found.left_out[among][chosen, np.arange(chosen.size)].mean())
    now = np.flatnonzero(among)[found.apparent[among].argmax()]
    around = np.quantile(found.drawn[now] - found.apparent[now], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Corrected(dice=corrected, low=corrected + float(around[0]), high=corrected + float(around[1]))


def selection_bias(dice: Sequence[Floats], groups: Sequence[str], *, seed: int = SEED) -> float:
    """Computes the selection bias in Dice of the best of several students, which was chosen by these images.

    ``dice`` holds N coefficients for each student, NaN for negative images; see ``standings``. Returns 0 if
    the images are too few, or if there is only one student.
    """
    found = resample(np.stack(dice), groups, seed=seed) if len(dice) > 1 else None
    if found is None:
        return 0.0
    return float(found.apparent.max()) - _corrected(found, np.ones(len(dice), dtype=np.bool_)).dice


Standings: TypeAlias = Mapping[int, Standing]
"""Standings by trial."""
NOTHING_KNOWN: Standings = MappingProxyType({})


def standing_metrics(standings: Standings, number: int) -> dict[str, float]:
    """Returns a student's standing as metrics by name; empty if it is unknown."""
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
    """Computes the standing of each student on the front of these objectives; all except Dice are exact.

    ``groups`` are the validation images' groups; None makes each image its own group. Returns an empty dict if
    Dice is not an objective, if students of older releases lack each image's Dice, or if the images are too few.
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
