"""The plan: which students are confirmed and compared with which, and that a sealed plan cannot change."""

from __future__ import annotations

import dataclasses
import json

import pytest

from kdsearch.confirm.plan import choose_members, digest_of, dump_plan, make_plan, read_plan, size_class
from kdsearch.errors import KdsearchError, SearchError
from kdsearch.statistics.selection import Corrected, Standing
from kdsearch.trials.recipe import Inherited
from tests.confirm.candidates import distilled, student

PARTITIONS = (("a", "b"), ("c", "d"))


def _standing(stability):
    return Standing(stability=stability, corrected=Corrected(dice=0.5, low=0.4, high=0.6))


def _plan(tiny, students, standings=None, **given):
    return make_plan(tiny, students, standings or {}, partitions=PARTITIONS, **given)


def test_one_member_a_size_class_is_the_likeliest():
    assert size_class(999) < size_class(1000) < size_class(3200)
    assert size_class(1000) == size_class(3100)


def test_members_come_from_the_front_one_per_size_class(tiny):
    students = [
        student(0, 0.5, 1000), student(1, 0.55, 2000), student(2, 0.4, 5000), student(3, 0.7, 20_000),
    ]  # fmt: skip
    standings = {0: _standing(0.9), 1: _standing(0.6), 2: _standing(0.0), 3: _standing(1.0)}
    assert [member.number for member in choose_members(tiny, students, standings)] == [0, 3]
    assert [member.number for member in choose_members(tiny, students, {})] == [1, 3], "by Dice where nothing is known"


def test_near_equals_are_merged_into_the_likelier(tiny):
    students = [student(0, 0.5, 900), student(1, 0.6, 1100)]
    assert [member.number for member in choose_members(tiny, students, {0: _standing(0.8), 1: _standing(0.7)})] == [0]


def test_no_more_members_than_asked_for(tiny):
    few = tiny.model_copy(update={"confirm": tiny.confirm.model_copy(update={"students": 2})})
    students = [student(place, 0.3 + 0.1 * place, 10 ** (place + 2)) for place in range(5)]
    standings = {place: _standing(likely) for place, likely in enumerate((0.9, 0.2, 0.1, 0.3, 1.0))}
    assert [member.number for member in choose_members(few, students, standings)] == [0, 4]


def test_each_distilled_member_has_a_twin_of_its_own_recipe(tiny):
    plan = _plan(tiny, [distilled(3, 0.5, 1000), student(4, 0.7, 20_000)])
    assert [(arm.id, arm.role) for arm in plan.arms] == [("3", "member"), ("3-twin", "twin"), ("4", "member")]
    member, twin = plan.arm("3").recipe, plan.arm("3-twin").recipe
    assert member.distillation is not None
    assert twin == member.model_copy(update={"distillation": None})
    assert [(pair.arm, pair.other) for pair in plan.twins] == [("3", "3-twin")]
    assert [(pair.arm, pair.other) for pair in plan.not_worse] == [("3", "4")]


def test_smaller_members_are_compared_with_the_largest_from_the_next_smaller_down(tiny):
    plan = _plan(tiny, [student(3, 0.5, 1000), student(4, 0.7, 20_000), student(5, 0.8, 400_000)])
    assert [(pair.arm, pair.other) for pair in plan.not_worse] == [("4", "5"), ("3", "5")]


def test_plan_sealed_before_the_order_of_testing_was_chosen_keeps_its_rule(tiny):
    stored = json.loads(dump_plan(_plan(tiny, [distilled(3, 0.5, 1000)])))
    assert (stored["schema"], stored.pop("testing")) == (2, "pooled first")
    before = json.dumps(stored | {"schema": 0})
    assert read_plan(before).testing == "one family"
    assert read_plan(before).digest == digest_of(before)


def test_undistilled_student_is_its_own_twin(tiny):
    member = distilled(3, 0.5, 1000)
    plain = dataclasses.replace(
        student(9, 0.4, 1000), recipe=member.recipe.model_copy(update={"distillation": None, "seed": 5})
    )
    plan = _plan(tiny, [member, plain])
    assert [arm.id for arm in plan.arms] == ["3", "3-twin"]


def test_student_that_inherited_weights_is_confirmed_from_scratch(tiny):
    """Its donor was trained with images of every fold."""
    one = distilled(0, 0.5, 1000)
    whole = one.recipe.training.epochs
    short = one.recipe.training.model_copy(update={"epochs": 1})
    recipe = one.recipe.model_copy(update={"training": short, "start": Inherited(donor=3, scratch_epochs=whole)})
    plan = _plan(tiny, [dataclasses.replace(one, recipe=recipe)])
    assert [(arm.recipe.start, arm.recipe.training.epochs) for arm in plan.arms] == [(None, whole)] * 2
    assert [arm.searched for arm in plan.arms] == [None, None]
    assert plan.warnings[0].startswith("trial 0 inherited weights in the search")
    assert _plan(tiny, [one]).warnings == ()


def test_best_undistilled_student_of_a_class_is_an_arm(tiny):
    plan = _plan(tiny, [distilled(3, 0.5, 1000), student(5, 0.45, 1500), student(6, 0.3, 1400), student(7, 0.2, 10)])
    assert [(arm.id, arm.role) for arm in plan.arms if arm.role == "undistilled"] == [("5", "undistilled")]


def test_folds_of_all_repetitions_have_seeds_of_their_own(tiny):
    plan = _plan(tiny, [student(0, 0.5, 1000)])
    seeds = [seed for repetition in plan.seeds for seed in repetition]
    assert len(set(seeds)) == 4
    assert [(one.repetition, one.fold) for one in plan.repeats()] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_plan_and_its_digest_survive_writing_and_reading(tiny):
    plan = _plan(tiny, [distilled(3, 0.5, 1000), student(4, 0.7, 20_000)])
    assert dataclasses.replace(read_plan(dump_plan(plan)), sealed_digest="") == plan
    assert read_plan(dump_plan(plan)).digest == plan.digest
    other = tiny.model_copy(update={"confirm": tiny.confirm.model_copy(update={"margin": 0.01})})
    assert _plan(other, [distilled(3, 0.5, 1000), student(4, 0.7, 20_000)]).digest != plan.digest


def test_plan_by_source_survives_writing_and_reading(tiny):
    """Its settings name the number of folds, which a study file must not."""
    by_source = tiny.confirm.model_copy(update={"leave_one_source_out": True})
    plan = _plan(tiny.model_copy(update={"confirm": by_source}), [student(0, 0.5, 1000)])
    read = read_plan(dump_plan(plan))
    assert read.settings == by_source
    assert read.digest == plan.digest


def test_sealed_plan_keeps_its_digest_across_releases(tiny):
    text = dump_plan(_plan(tiny, [student(0, 0.5, 1000)]))
    reordered = text.replace('{"arms"', '{ "arms"')
    assert read_plan(reordered).digest == digest_of(reordered) != digest_of(text)


def test_text_that_is_no_plan_is_refused():
    with pytest.raises(SearchError, match="cannot read the confirmation's plan"):
        read_plan('{"schema": 0, "study": "a"}')


def test_newer_plan_is_refused(tiny):
    text = dump_plan(_plan(tiny, [student(0, 0.5, 1000)])).replace('"schema": 2', '"schema": 7')
    with pytest.raises(KdsearchError, match="confirmation's plan: written by a newer release"):
        read_plan(text)


def test_study_without_students_has_nothing_to_confirm(tiny):
    with pytest.raises(SearchError, match="no finished student on its front yet"):
        _plan(tiny, [])
