"""What a confirmation found, as it is shown, shipped and compared; free of torch."""

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
"""Out of fold on all images but the locked, or on those."""
Verdict: TypeAlias = Literal["helps", "hurts", "inconclusive", "exploratory"]
"""``exploratory``: of a pair that is not tested, because the pooled effect is not shown."""
Testing: TypeAlias = Literal["one family", "pooled first"]
"""How a plan shares out its error rate.

``pooled first``: distillation's pooled effect is tested by itself, the pairs by Holm only if it is shown; smaller
members are a fixed sequence against the largest. ``one family``, of plans sealed before: the pooled effect and the
pairs together by Holm, likewise all pairs of members.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean and its 95 % interval over groups of images."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """In %."""
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Dice on some of the images."""

    of: str
    """Such as ``source busi``, ``label malignant``, ``smallest third``."""
    images: int
    dice: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmAnswer:
    """One arm, or the teacher, scored out of fold at the size of the files."""

    id: str
    name: str
    role: Role | Literal["teacher"]
    trial: int | None
    """None of the teacher."""
    path: str
    """The distillation's, ``none`` without."""
    params: int
    macs: int
    dice: Estimate
    dice_at_size: float
    """At the study's size, by which the search chose."""
    selection_bias: float | None
    """The search's Dice minus ``dice_at_size``; None where the search did not choose by it, or by
    inherited weights."""
    std_images: float
    """Of Dice over images."""
    std_runs: float | None
    """Of the mean Dice over repetitions; None where there is one."""
    nsd: float
    hd95: float
    """As a fraction of the image's diagonal."""
    missed: float
    """Mean number of images with a lesion in which nothing was marked."""
    found: float
    """Fraction of lesions that the marking touches."""
    below_half: float
    """Fraction of images with a Dice under 0.5."""
    false_positives: float | None
    """Fraction of images without a lesion in which something was marked; None where there are none."""
    parts: tuple[Part, ...]
    minus_teacher: Compared | None
    """None of the teacher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A distilled member minus its twin."""

    member: str
    twin: str
    difference: Compared
    exploratory: bool = False
    """Whether the pair is not tested; its interval is then a plain one of 95 %."""

    @property
    def verdict(self) -> Verdict:
        """Of distillation."""
        return "exploratory" if self.exploratory else verdict_of(self.difference)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsGood:
    """A smaller member minus a larger one."""

    smaller: str
    larger: str
    difference: NotWorse


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """All answers of one sealed plan."""

    kind: Kind
    study: str
    plan: str
    """The plan's digest."""
    sealed: str
    number: int
    """From 1: which plan of the study it is."""
    folds: int
    repetitions: int
    by_source: bool
    images: int
    """With a lesion."""
    groups: int
    margin: float
    arms: tuple[ArmAnswer, ...]
    """Smallest first."""
    teacher: ArmAnswer
    effects: tuple[Effect, ...]
    pooled: Compared | None
    """The mean of all distilled members minus their twins, also of those that racing dropped, in the folds that they
    were trained in; None where nothing is distilled."""
    front_gain: Estimate | None
    """The distilled front minus the undistilled one: mean Dice of the best student no larger, over the logarithm of
    parameters, with an interval over images only; None where fewer than two members are distilled."""
    as_good: tuple[AsGood, ...]
    left_out: tuple[tuple[str, str], ...]
    """Arms that failed or were dropped, and why."""
    warnings: tuple[str, ...]
    testing: Testing = "pooled first"

    @property
    def members(self) -> tuple[ArmAnswer, ...]:
        """Smallest first."""
        return tuple(arm for arm in self.arms if arm.role == "member")

    @property
    def verdict(self) -> Verdict | None:
        """Of distillation, all pairs together; None where nothing is distilled."""
        return None if self.pooled is None else verdict_of(self.pooled)

    def arm(self, name: str) -> ArmAnswer:
        """The arm of that id."""
        return next(arm for arm in self.arms if arm.id == name)

    def member_of(self, trial: int) -> ArmAnswer | None:
        """The confirmed member of that trial."""
        return next((arm for arm in self.members if arm.trial == trial), None)


def verdict_of(difference: Compared) -> Verdict:
    """Whether a difference is shown to be an improvement or a loss, or neither."""
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
    """As JSON, for people and programs; what is not finite is null."""
    return json.dumps(SCHEMA.stamped(json.loads(_CONFIRMATION.dump_json(confirmation))), indent=2, allow_nan=False)
