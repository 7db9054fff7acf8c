"""The plan of a confirmation: all that is trained and compared, fixed before anything of it is known."""

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
"""Two members whose parameters differ by less than this factor are near-equals; the likelier stays."""
CLASSES_PER_DECADE = 2
SEEDS = 3
"""With which a student is trained for the locked test; the first ships."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One recipe that is trained in every fold of every repetition."""

    id: str
    """Its trial's number, ``12-twin`` for the twin of trial 12."""
    role: Role
    """``undistilled``: the search's best undistilled student of a size class that a member is in."""
    trial: int
    recipe: Recipe
    """Trained for its whole schedule; the seed is the fold's."""
    params: int
    macs: int
    searched: float | None
    """The Dice by which the search chose its trial, 0-1; of a twin, its member's. None where that was the Dice of
    inherited weights, while the arm is trained from scratch."""

    @property
    def name(self) -> str:
        """As people are told of it."""
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
    """From 0, as ``fold``."""
    fold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a confirmation trains and compares."""

    kind: Kind
    study: str
    arms: tuple[Arm, ...]
    """Smallest first; a twin after its member."""
    twins: tuple[Pair, ...]
    """Distilled members and their twins: does distillation help?"""
    not_worse: tuple[Pair, ...]
    """Members that are compared with the largest one, in the order of testing: the next smaller first. If the largest
    has no answer, the largest that has one takes its place."""
    settings: ConfirmConfig
    testing: Testing
    partitions: tuple[tuple[str, ...], ...]
    """Fingerprint of each fold of each repetition."""
    seeds: tuple[tuple[int, ...], ...]
    """That the networks of each fold of each repetition share."""
    ships: int
    """The seed whose student is to be shipped, should one be trained on all images."""
    warnings: tuple[str, ...] = ()
    sealed_digest: str = ""
    """Under which it was sealed; empty before."""

    @property
    def digest(self) -> str:
        """Stands for all of it, as it was written when it was sealed."""
        return self.sealed_digest or digest_of(dump_plan(self))

    def tests_the_same(self, other: Plan) -> bool:
        """Whether both train the same recipes on the same images with the same seeds."""
        return (self.arms, self.partitions, self.seeds) == (other.arms, other.partitions, other.seeds)

    @property
    def members(self) -> tuple[Arm, ...]:
        """Smallest first."""
        return tuple(arm for arm in self.arms if arm.role == "member")

    @property
    def pilot(self) -> bool:
        """Whether there is too little of it for a claim."""
        return self.kind == "confirm" and self.settings.repetitions < 3

    def arm(self, name: str) -> Arm:
        """The arm of that id."""
        return next(arm for arm in self.arms if arm.id == name)

    def repeats(self) -> Iterator[Repeat]:
        """All trainings but the teachers', fold by fold."""
        for repetition, folds in enumerate(self.partitions):
            for fold in range(len(folds)):
                for arm in self.arms:
                    yield Repeat(arm=arm, repetition=repetition, fold=fold)

    def job(self, repeat: Repeat) -> str:
        """The id of the job that makes it."""
        return job_of_repeat(self.digest, arm=repeat.arm.id, repetition=repeat.repetition, fold=repeat.fold)


def make_plan(
    study: StudyConfig,
    students: Sequence[Student],
    standings: Standings,
    *,
    partitions: Sequence[Sequence[str]],
    warnings: Sequence[str] = (),
) -> Plan:
    """The likely members of the front, their twins and the best undistilled students of their sizes.

    Raises SearchError where the study has no student on its front yet.
    """
    members = choose_members(study, students, standings)
    if not members:
        raise SearchError(f"study {study.name} has no finished student on its front yet; train some with kdsearch run")
    arms = [_arm(member, "member") for member in members]
    twins = []
    for member in members:
        if member.recipe.distillation is not None:
            twin = _twin_among(arms, member) or _arm(member, "twin")
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
    """The student's recipe and its twin, trained on all but the locked test images with ``SEEDS`` seeds.

    ``partition`` is the fingerprint of those images and the locked ones.
    """
    arms = [_arm(student, "member")]
    twins = []
    if student.recipe.distillation is not None:
        arms.append(_arm(student, "twin"))
        twins.append(Pair(arm=arms[0].id, other=arms[1].id))
    seeds = tuple((study.seed + place,) for place in range(SEEDS))
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
    """One member of the front of each size class, the likeliest; near-equals merged; smallest first."""

    def likely(student: Student) -> tuple[float, float]:
        stability = standings[student.number].stability if student.number in standings else 0.0
        return stability, student.scores.dice

    best: dict[int, Student] = {}
    for student in front_of(students, study.search.objectives, study.search.limits):
        place = size_class(student.scores.params)
        best[place] = max(best.get(place, student), student, key=likely)
    chosen = [best[place] for place in sorted(best)]
    while near := _nearest_pair(chosen):
        chosen.remove(min(near, key=likely))
    while len(chosen) > study.confirm.students:
        chosen.remove(min(chosen, key=likely))
    return tuple(chosen)


def size_class(params: int) -> int:
    """Half decades of parameters."""
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
    """What to mind of students that inherited; they are trained from scratch, as their donors have seen every fold."""
    trials = sorted({arm.trial for arm in arms if arm.searched is None})
    if not trials:
        return []
    named = f"trial{'s' * (len(trials) > 1)} {', '.join(map(str, trials))}"
    warning = (
        f"{named} began with another student's weights in the search, and that one has seen the images that score: "
        "what is scored is the recipe trained from scratch, over all its epochs; the search's own weights may be better"
    )
    return [warning]


def _twin_among(arms: Sequence[Arm], member: Student) -> Arm | None:
    """An arm that is trained as the member's twin would be."""
    return next((arm for arm in arms if _trained_alike(arm.recipe, _arm(member, "twin").recipe)), None)


def _undistilled_arms(members: Sequence[Student], students: Sequence[Student], arms: Sequence[Arm]) -> list[Arm]:
    """The best student without distillation of each size class that a member is in, where it is no arm yet."""
    found: list[Arm] = []
    for place in sorted({size_class(member.scores.params) for member in members}):
        undistilled = [
            student
            for student in students
            if student.recipe.distillation is None and size_class(student.scores.params) == place
        ]
        if undistilled:
            arm = _arm(max(undistilled, key=lambda student: student.scores.dice), "undistilled")
            if not any(_trained_alike(other.recipe, arm.recipe) for other in (*arms, *found)):
                found.append(arm)
    return found


def _trained_alike(one: Recipe, other: Recipe) -> bool:
    return one.model_copy(update={"seed": 0}) == other.model_copy(update={"seed": 0})


def _tested_as_one_family(content: Content) -> Content:
    """Plans sealed before there was a choice keep their rule."""
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
    """As it is stored."""
    return json.dumps(SCHEMA.stamped(_PLAN.dump_python(plan, mode="json", exclude={"sealed_digest"})), sort_keys=True)


def read_plan(text: str) -> Plan:
    """A stored plan; raises KdsearchError where a newer release wrote it, or it is none."""
    try:
        plan = _PLAN.validate_json(json.dumps(SCHEMA.upgraded(json.loads(text))), context=READING)
    except (ValidationError, KeyError, TypeError) as error:
        raise SearchError(f"confirmation's plan: cannot be read: {first_line(error)}") from error
    return dataclasses.replace(plan, sealed_digest=digest_of(text))


def digest_of(text: str) -> str:
    """Of a plan as it is written."""
    return digest(text)
