"""The plan of a confirmation: everything that is trained and compared, fixed before training starts."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from kdsearch.config.ranges import READING
from kdsearch.config.renamed import ROLES, up_to_date
from kdsearch.config.study import ConfirmConfig, StudyConfig
from kdsearch.errors import SearchError, first_line
from kdsearch.files.digests import digest, seed_of
from kdsearch.files.schema import Content, Schema
from kdsearch.front.dominance import front_of
from kdsearch.statistics.confirmation import Kind, Role, Testing
from kdsearch.statistics.selection import Standings
from kdsearch.trials.recipe import SCHEMA as RECIPE
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import Student, job_of_repeat

NEAR = 1.5
"""If two members' parameters differ by less than this factor, only the likelier stays."""
CLASSES_PER_DECADE = 2
SEEDS = 3
"""Number of seeds with which a student is trained for the locked test; the student of the first may be shipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One recipe that is trained in every fold of every repetition."""

    id: str
    """Its trial's number, ``12-twin`` for the twin of trial 12."""
    role: Role
    """``undistilled``: the search's best undistilled student in the size class of a member."""
    trial: int
    recipe: Recipe
    """Trained for all its epochs; the fold determines the seed."""
    params: int
    macs: int
    searched: float | None
    """Its trial's Dice in the search, 0-1; for a twin, the member's. None if the trial inherited weights, because the
    arm is trained from scratch."""

    @property
    def name(self) -> str:
        """The name that is displayed."""
        return f"twin of trial {self.trial}" if self.role == "twin" else f"trial {self.trial}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two arms that are compared: ``arm`` minus ``other``."""

    arm: str
    other: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """One arm in one fold of one repetition."""

    arm: Arm
    repetition: int
    """From 0, like ``fold``."""
    fold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a confirmation trains and compares."""

    kind: Kind
    study: str
    arms: tuple[Arm, ...]
    """Smallest first; a twin after its member."""
    twins: tuple[Pair, ...]
    """Distilled members and their twins, which test whether distillation helps."""
    not_worse: tuple[Pair, ...]
    """Members that are compared with the largest one, in the order of testing: the next smaller first. If the largest
    has no answer, they are compared with the largest that has one."""
    settings: ConfirmConfig
    testing: Testing
    partitions: tuple[tuple[str, ...], ...]
    """The fingerprint of each fold of each repetition."""
    seeds: tuple[tuple[int, ...], ...]
    """The seed for all networks of each fold of each repetition."""
    ships: int
    """The seed of the student that may be shipped, if one is trained on all images."""
    warnings: tuple[str, ...] = ()
    sealed_digest: str = ""
    """The digest of the sealed text; empty until the plan is sealed."""

    @property
    def digest(self) -> str:
        """Identifies the plan; the digest of its sealed text if it is sealed."""
        return self.sealed_digest or digest_of(dump_plan(self))

    def tests_the_same(self, other: Plan) -> bool:
        """Whether both train the same recipes on the same images with the same seeds."""
        return (self.arms, self.partitions, self.seeds) == (other.arms, other.partitions, other.seeds)

    @property
    def members(self) -> tuple[Arm, ...]:
        """The members, smallest first."""
        return tuple(arm for arm in self.arms if arm.role == "member")

    @property
    def pilot(self) -> bool:
        """Whether it has too few repetitions for a claim."""
        return self.kind == "confirm" and self.settings.repetitions < 3

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.id == name)

    def repeats(self) -> Iterator[Repeat]:
        """All training runs except those of teachers, fold by fold."""
        for repetition, folds in enumerate(self.partitions):
            for fold in range(len(folds)):
                for arm in self.arms:
                    yield Repeat(arm=arm, repetition=repetition, fold=fold)

    def job(self, repeat: Repeat) -> str:
        return job_of_repeat(self.digest, arm=repeat.arm.id, repetition=repeat.repetition, fold=repeat.fold)


def make_plan(
    study: StudyConfig,
    students: Sequence[Student],
    standings: Standings,
    *,
    partitions: Sequence[Sequence[str]],
    warnings: Sequence[str] = (),
) -> Plan:
    """Plans the likely members of the front, their twins and the best undistilled students of their sizes.

    Raises SearchError if the study has no student on its front yet.
    """
    members = choose_members(study, students, standings)
    if not members:
        raise SearchError(f"study {study.name} has no finished student on its front yet; train some with kdsearch run")
    arms = [_arm(member, "member") for member in members]
    twins = []
    for member in members:
        if member.recipe.distillation is not None:
            own = _arm(member, "twin")
            twin = next((arm for arm in arms if _trained_alike(arm.recipe, own.recipe)), own)
            arms += [twin] * (twin not in arms)
            twins.append(Pair(arm=str(member.number), other=twin.id))
    arms += _undistilled_arms(members, students, arms)
    arms.sort(key=lambda arm: (arm.params, arm.macs, arm.trial, arm.id))
    names = [str(member.number) for member in members]
    return Plan(
        kind="confirm",
        study=study.name,
        arms=tuple(arms),
        twins=tuple(twins),
        not_worse=tuple(Pair(arm=smaller, other=names[-1]) for smaller in reversed(names[:-1])),
        settings=study.confirm,
        testing="pooled first",
        partitions=tuple(tuple(folds) for folds in partitions),
        seeds=tuple(
            tuple(seed_of("confirm", study.confirm.seed, repetition, fold) for fold in range(len(folds)))
            for repetition, folds in enumerate(partitions)
        ),
        ships=study.seed,
        warnings=(*warnings, *_from_scratch(arms)),
    )


def make_test_plan(study: StudyConfig, student: Student, *, partition: str, warnings: Sequence[str] = ()) -> Plan:
    """Plans to train the student's recipe and its twin on all but the locked test images, with ``SEEDS`` seeds.

    ``partition`` is the fingerprint of the split into these images and the locked ones.
    """
    arms = [_arm(student, "member")]
    twins = []
    if student.recipe.distillation is not None:
        arms.append(_arm(student, "twin"))
        twins.append(Pair(arm=arms[0].id, other=arms[1].id))
    seeds = tuple((study.seed + number,) for number in range(SEEDS))
    return Plan(
        kind="test",
        study=study.name,
        arms=tuple(arms),
        twins=tuple(twins),
        not_worse=(),
        settings=study.confirm,
        testing="pooled first",
        partitions=((partition,),) * SEEDS,
        seeds=seeds,
        ships=seeds[0][0],
        warnings=(*warnings, *_from_scratch(arms)),
    )


def choose_members(study: StudyConfig, students: Sequence[Student], standings: Standings) -> tuple[Student, ...]:
    """The student of each size class that is most likely on the front, without near-equal sizes; smallest first."""

    def likely(student: Student) -> tuple[float, float]:
        stability = standings[student.number].stability if student.number in standings else 0.0
        return stability, student.scores.dice

    best: dict[int, Student] = {}
    for student in front_of(students, study.search.objectives, study.search.limits):
        size = size_class(student.scores.params)
        best[size] = max(best.get(size, student), student, key=likely)
    chosen = [best[size] for size in sorted(best)]
    while near := _nearest_pair(chosen):
        chosen.remove(min(near, key=likely))
    while len(chosen) > study.confirm.students:
        chosen.remove(min(chosen, key=likely))
    return tuple(chosen)


def size_class(params: int) -> int:
    """The index of a size class; each class covers a factor of about 3 in parameters."""
    return math.floor(CLASSES_PER_DECADE * math.log10(params))


def _nearest_pair(students: Sequence[Student]) -> tuple[Student, Student] | None:
    return next(
        (pair for pair in itertools.pairwise(students) if pair[1].scores.params < NEAR * pair[0].scores.params), None
    )


def _arm(student: Student, role: Role) -> Arm:
    whole = student.recipe.from_scratch
    recipe = whole.model_copy(
        update={"training": whole.training.model_copy(update={"patience": None})}
        | ({"distillation": None} if role == "twin" else {})
    )
    return Arm(
        id=f"{student.number}-twin" if role == "twin" else str(student.number),
        role=role,
        trial=student.number,
        recipe=recipe,
        params=student.scores.params,
        macs=student.scores.macs,
        searched=student.scores.dice if student.recipe.start is None else None,
    )


def _from_scratch(arms: Sequence[Arm]) -> list[str]:
    """Warns about students that inherited; they start from scratch, because their donors used images of all folds."""
    trials = sorted({arm.trial for arm in arms if arm.searched is None})
    if not trials:
        return []
    named = f"trial{'s' * (len(trials) > 1)} {', '.join(map(str, trials))}"
    warning = (
        f"{named} inherited weights in the search from students that were trained on the images scored here; these "
        "scores describe the recipe trained from scratch for all its epochs, and the inherited weights may score higher"
    )
    return [warning]


def _undistilled_arms(members: Sequence[Student], students: Sequence[Student], arms: Sequence[Arm]) -> list[Arm]:
    """The best undistilled student in each member's size class, unless an arm is trained in the same way."""
    found: list[Arm] = []
    for size in sorted({size_class(member.scores.params) for member in members}):
        undistilled = [
            student
            for student in students
            if student.recipe.distillation is None and size_class(student.scores.params) == size
        ]
        if undistilled:
            arm = _arm(max(undistilled, key=lambda student: student.scores.dice), "undistilled")
            if not any(_trained_alike(other.recipe, arm.recipe) for other in (*arms, *found)):
                found.append(arm)
    return found


def _trained_alike(one: Recipe, other: Recipe) -> bool:
    return one.model_copy(update={"seed": 0}) == other.model_copy(update={"seed": 0})


def _tested_as_one_family(content: Content) -> Content:
    """Plans that were sealed before there was a choice keep their rule."""
    return content | {"testing": "one family"}


def _renamed(content: Content) -> Content:
    """Schema 1 had the names of before; its recipes have no schema number and are of recipes' schema 3 or less."""
    arms = [
        arm | {"recipe": RECIPE.upgraded({"schema": 3} | arm["recipe"])} | {"role": ROLES.get(arm["role"], arm["role"])}
        for arm in content["arms"]
    ]
    return content | {"arms": arms, "settings": up_to_date({"confirm": content["settings"]}).content["confirm"]}


_PLAN = TypeAdapter(Plan)
SCHEMA = Schema(what="confirmation's plan", upgrades=(_tested_as_one_family, _renamed))


def dump_plan(plan: Plan) -> str:
    return json.dumps(SCHEMA.stamped(_PLAN.dump_python(plan, mode="json", exclude={"sealed_digest"})), sort_keys=True)


def read_plan(text: str) -> Plan:
    """Reads a stored plan; raises KdsearchError if it is invalid or a newer release wrote it."""
    try:
        plan = _PLAN.validate_json(json.dumps(SCHEMA.upgraded(json.loads(text))), context=READING)
    except (ValidationError, KeyError, TypeError) as error:
        raise SearchError(f"cannot read the confirmation's plan: {first_line(error)}") from error
    return dataclasses.replace(plan, sealed_digest=digest_of(text))


def digest_of(text: str) -> str:
    return digest(text)
