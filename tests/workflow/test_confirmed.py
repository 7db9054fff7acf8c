"""Picking among confirmed students."""

from __future__ import annotations

import dataclasses

import pytest

from kdsearch.front.rules import Budget, Candidate, Rule
from kdsearch.statistics.comparisons import NotWorse
from kdsearch.statistics.confirmation import ArmAnswer, AsGood, Confirmation, Estimate
from kdsearch.workflow.confirmed import explain_confirmed, rank_confirmed, with_confirmed_dice
from tests.front.students import student

SIZES = {1: 1_000, 2: 10_000, 3: 100_000, 4: 1_000_000}
DICE = {1: 0.70, 2: 0.80, 3: 0.82, 4: 0.81}


def _arm(trial):
    value = Estimate(mean=DICE[trial], low=DICE[trial] - 0.02, high=DICE[trial] + 0.02)
    return ArmAnswer(
        id=str(trial), name=f"trial {trial}", role="member", trial=trial, path="none", params=SIZES[trial],
        macs=SIZES[trial], dice=value, dice_at_size=value.mean, selection_bias=None, std_images=0.2, std_runs=None,
        nsd=0.5, hd95=0.1, missed=0.0, found=1.0, below_half=0.0, false_positives=None, parts=(), minus_teacher=None,
    )  # fmt: skip


def _confirmation(lows, *, testing="pooled first"):
    """Lower bounds of smaller minus larger members, by their trials."""
    as_good = tuple(
        AsGood(
            smaller=str(smaller),
            larger=str(larger),
            difference=NotWorse(mean=0.0, low=low, p=0.01 if low > -0.02 else 0.5, margin=0.02),
        )
        for (smaller, larger), low in lows.items()
    )
    return Confirmation(
        kind="confirm", study="s", plan="0", sealed="2026-01-01", number=1, folds=5, repetitions=3, by_source=False,
        images=100, groups=100, margin=0.02, arms=tuple(_arm(trial) for trial in SIZES), teacher=_arm(4), effects=(),
        pooled=None, front_gain=None, as_good=as_good, left_out=(), warnings=(), testing=testing,
    )  # fmt: skip


IN_ORDER = _confirmation({(3, 4): -0.01, (2, 4): -0.015, (1, 4): -0.1})


def _pick(found, *, tolerance, params=None):
    candidates = [Candidate(student=student(trial, 0.5, SIZES[trial])) for trial in SIZES]
    budget, rule = Budget(params=params), Rule(name="smallest-within", tolerance=tolerance)
    within = [entry for entry in with_confirmed_dice(candidates, found) if budget.excess(entry) <= 0]
    chosen = rank_confirmed(within, rule, found)[0]
    return chosen.student.number, explain_confirmed(chosen, count=len(within), budget=budget, rule=rule, found=found)


def test_smallest_member_proven_within_the_tolerance_is_picked():
    number, why = _pick(IN_ORDER, tolerance=0.02)
    assert number == 2
    assert "is shown to stay within 2 points of trial 4, the largest: " in why


def test_reference_counts_even_outside_the_budget():
    assert _pick(IN_ORDER, tolerance=0.02, params=100_000)[0] == 2


def test_largest_member_is_picked_unless_a_smaller_one_is_proven_as_good():
    number, why = _pick(IN_ORDER, tolerance=0.005)
    assert number == 4
    assert "none of the smaller ones is shown to stay within 0.5 points of it" in why


def test_best_within_budget_is_picked_unless_a_smaller_one_is_proven_as_good():
    number, why = _pick(IN_ORDER, tolerance=0.005, params=10_000)
    assert number == 2
    assert "has the best confirmed Dice" in why
    assert "none of them is shown to stay within 0.5 points of trial 4" in why


def test_only_confirmed_student_is_described_as_such():
    alone = dataclasses.replace(_confirmation({}), arms=(_arm(3),))
    number, why = _pick(alone, tolerance=0.02)
    assert (number, why.startswith("Trial 3 is the only confirmed student: ")) == (3, True)


def test_unplanned_margin_is_pointed_out():
    _, why = _pick(IN_ORDER, tolerance=0.012)
    assert "(the plan's error rate holds for its own margin, 2 points)" in why


@pytest.mark.parametrize(("tolerance", "number"), [(0.02, 1), (0.005, 3)])
def test_plan_of_an_older_release_compares_with_the_best(tolerance, number):
    before = _confirmation({(2, 3): -0.05, (1, 3): -0.01, (1, 4): -0.2}, testing="one family")
    assert _pick(before, tolerance=tolerance)[0] == number
