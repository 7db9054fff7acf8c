"""The results of a confirmation; free of torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import TypeAdapter

from kdsearch.config.renamed import FIGURES, ROLES
from kdsearch.files.schema import Content, Schema, unchanged
from kdsearch.statistics.comparisons import Compared, NotWorse

Role: TypeAlias = Literal["member", "twin", "undistilled"]
Kind: TypeAlias = Literal["confirm", "test"]
"""``confirm``: cross-validated on all images except the locked test images; ``test``: on those."""
Verdict: TypeAlias = Literal["helps", "hurts", "inconclusive", "exploratory"]
"""``not shown`` means inconclusive; ``exploratory`` is the verdict of a pair that is not tested, because the pooled
effect is inconclusive."""
Testing: TypeAlias = Literal["one family", "pooled first"]
"""How a plan splits its error rate.

``pooled first``: the pooled effect of distillation is tested by itself, and the pairs (by Holm) only if it is
significant; smaller students are compared with the largest in a fixed sequence. ``one family`` (older plans): Holm over
the pooled effect and the pairs, and Holm over all pairs of students.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean and its 95 % interval over groups of images."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Returns percentages."""
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Dice on a subset of the images."""

    of: str
    """The subset, such as ``source busi``, ``label malignant``, ``smallest third``."""
    images: int
    dice: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmAnswer:
    """Cross-validated scores, at the original resolution, of one arm or of the teacher."""

    id: str
    name: str
    role: Role | Literal["teacher"]
    trial: int | None
    """None for the teacher."""
    path: str
    """The distillation path; ``none`` if undistilled."""
    params: int
    macs: int
    dice: Estimate
    dice_at_size: float
    """At the study's size, as in the search."""
    selection_bias: float | None
    """Selection bias: the search's Dice minus ``dice_at_size``; None if the search did not choose this network, or
    chose it with inherited weights."""
    std_images: float
    """Standard deviation of Dice over images."""
    std_runs: float | None
    """Standard deviation of mean Dice over repetitions; None for one repetition."""
    nsd: float
    hd95: float
    """As a fraction of the image's diagonal."""
    missed: float
    """Mean number of lesion images with an empty prediction."""
    found: float
    """Fraction of lesion images in which the prediction overlaps the lesion."""
    below_half: float
    """Fraction of lesion images with a Dice below 0.5."""
    false_positives: float | None
    """Fraction of negative images with a non-empty prediction; None if there are none."""
    parts: tuple[Part, ...]
    minus_teacher: Compared | None
    """None for the teacher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A distilled student minus its undistilled twin."""

    member: str
    twin: str
    difference: Compared
    exploratory: bool = False
    """Whether the pair is not tested; its interval is then an unadjusted one at 95 %."""

    @property
    def verdict(self) -> Verdict:
        """The verdict on distillation for this pair."""
        return "exploratory" if self.exploratory else verdict_of(self.difference)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsGood:
    """A smaller student minus a larger one."""

    smaller: str
    larger: str
    difference: NotWorse


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """All results of one sealed plan."""

    kind: Kind
    study: str
    plan: str
    """The plan's digest."""
    sealed: str
    number: int
    """The plan's number in the study, from 1."""
    folds: int
    repetitions: int
    by_source: bool
    images: int
    """Number of lesion images."""
    groups: int
    margin: float
    arms: tuple[ArmAnswer, ...]
    """Smallest first."""
    teacher: ArmAnswer
    effects: tuple[Effect, ...]
    pooled: Compared | None
    """Mean of all distilled students minus their twins, including students that racing dropped, in the folds that they
    were trained in; None if nothing is distilled."""
    front_gain: Estimate | None
    """The distilled front minus the undistilled one: best Dice up to a size, averaged over the logarithm of parameters.
    Its interval covers only images. None if fewer than two students are distilled."""
    as_good: tuple[AsGood, ...]
    left_out: tuple[tuple[str, str], ...]
    """Networks that failed or were dropped, with the reason."""
    warnings: tuple[str, ...]
    testing: Testing = "pooled first"

    @property
    def members(self) -> tuple[ArmAnswer, ...]:
        """The confirmed students, smallest first."""
        return tuple(arm for arm in self.arms if arm.role == "member")

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on distillation over all pairs; None if nothing is distilled."""
        return None if self.pooled is None else verdict_of(self.pooled)

    def arm(self, name: str) -> ArmAnswer:
        """Returns the arm with this id."""
        return next(arm for arm in self.arms if arm.id == name)

    def member_of(self, trial: int) -> ArmAnswer | None:
        """Returns the confirmed student of a trial; None if it was not confirmed."""
        return next((arm for arm in self.members if arm.trial == trial), None)


def verdict_of(difference: Compared) -> Verdict:
    """Returns whether a difference is a significant improvement, a significant loss, or inconclusive."""
    if not difference.shown:
        return "inconclusive"
    return "helps" if difference.mean > 0 else "hurts"


_CONFIRMATION = TypeAdapter(Confirmation)


def _renamed(content: Content) -> Content:
    """Schema 1 had the names of before."""
    names = {**FIGURES, "delta": "margin"}

    def arm(found: Content) -> Content:
        role = ROLES.get(found["role"], found["role"])
        return {names.get(key, key): value for key, value in found.items()} | {"role": role}

    parts = {"arms": [arm(one) for one in content["arms"]], "teacher": arm(content["teacher"])}
    return {names.get(key, key): value for key, value in content.items()} | parts


SCHEMA = Schema(what="confirmation", upgrades=(unchanged, _renamed))


def dump_confirmation(confirmation: Confirmation) -> str:
    """Writes JSON for people and programs; values that are not finite become null."""
    return json.dumps(SCHEMA.stamped(json.loads(_CONFIRMATION.dump_json(confirmation))), indent=2, allow_nan=False)
