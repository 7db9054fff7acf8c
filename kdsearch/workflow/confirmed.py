"""Chooses among confirmed students, by their confirmed Dice."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from kdsearch.config.quantity import format_quantity
from kdsearch.front.rules import Budget, Candidate, Rule
from kdsearch.statistics.confirmation import ArmAnswer, Confirmation


def with_confirmed_dice(candidates: Sequence[Candidate], found: Confirmation) -> list[Candidate]:
    """The candidates that were confirmed, with their confirmed Dice in place of the search's."""
    return [
        _with_dice(entry, member.dice.mean)
        for entry in candidates
        if (member := found.member_of(entry.student.number)) is not None
    ]


def rank_confirmed(within: Sequence[Candidate], rule: Rule, found: Confirmation) -> list[Candidate]:
    """The candidates in the rule's order; ``smallest-within`` considers those shown to stay within the tolerance.

    The reference is the largest confirmed student, whether or not it is within the budget; in plans of the earlier
    rule it is the best within the budget. If no candidate is shown to stay within the tolerance, the best one is taken.
    """
    if rule.name != "smallest-within":
        return rule.rank(within)
    best = max(within, key=lambda entry: entry.student.scores.dice)
    reference = _reference(best, found)
    lows = {one.smaller: one.difference.low for one in found.as_good if one.larger == reference}
    as_good = [
        entry
        for entry in within
        if (name := str(entry.student.number)) == reference or lows.get(name, -1.0) > -rule.tolerance
    ]
    return sorted(as_good or [best], key=lambda entry: (entry.student.scores.params, entry.student.scores.macs))


def _reference(best: Candidate, found: Confirmation) -> str:
    return str(best.student.number) if found.testing == "one family" else found.members[-1].id


def explain_confirmed(chosen: Candidate, *, count: int, budget: Budget, rule: Rule, found: Confirmation) -> str:
    """Why it was taken, in one sentence; ``count`` is the number of confirmed students within the budget."""
    member = found.member_of(chosen.student.number)
    assert member is not None, "it was confirmed"
    among = f"{count} confirmed students" + ("" if str(budget) == "no budget" else f" within {budget}")
    why = {
        "best": f"has the best confirmed Dice of {among}",
        "smallest-within": _why_smallest(chosen, among, rule=rule, found=found),
        "knee": f"is the knee of {among}",
    }[rule.name]
    return f"Trial {member.trial} {why}: {headline(member)}."


def _why_smallest(chosen: Candidate, among: str, *, rule: Rule, found: Confirmation) -> str:
    points, sealed = 100 * rule.tolerance, 100 * found.margin
    if found.testing == "one family":
        return f"is the smallest of {among} that stays within {points:g} points of the best"
    largest, name = found.members[-1], str(chosen.student.number)
    if len(found.members) == 1:
        return "is the only confirmed student"
    if name == largest.id:
        return f"is the largest of {among}, and no smaller one is shown to stay within {points:g} points of it"
    low = next((one.difference.low for one in found.as_good if one.smaller == name), -1.0)
    if low <= -rule.tolerance:
        return (
            f"has the best confirmed Dice of {among}; none of them is shown to stay within {points:g} points of "
            f"{largest.name}, the largest"
        )
    same = math.isclose(points, sealed)
    planned = "" if same else f" (the plan's error rate holds for its own margin, {sealed:g} points)"
    return (
        f"is the smallest of {among} that is shown to stay within {points:g} points of {largest.name}, the "
        f"largest{planned}"
    )


def headline(member: ArmAnswer) -> str:
    """``Dice 75.3 [73.1, 77.2] %, 18k params, 5M MACs``."""
    return f"Dice {member.dice} %, {format_quantity(member.params)} params, {format_quantity(member.macs)} MACs"


def claim(member: ArmAnswer, found: Confirmation) -> str:
    """The student's confirmed score, and the effect of distillation on it."""
    pilot = "" if found.repetitions > 2 else " (a pilot)"
    bias = "" if member.selection_bias is None else f"; the search's Dice was {_too_high(member.selection_bias)}"
    text = (
        f"Cross-validated on {found.images} images, {found.folds} folds, {found.repetitions} "
        f"repetition{'s' * (found.repetitions > 1)}{pilot}, plan {found.plan}: its settings give "
        f"{headline(member)}{bias}.{_warnings(found)}"
    )
    effect = next((effect for effect in found.effects if effect.member == member.id), None)
    if effect is None:
        return text
    verdict = "exploratory, not tested by itself" if effect.exploratory else effect.verdict
    return f"{text} Effect of distillation: {effect.difference} Dice points compared with its twin, {verdict}."


def _too_high(bias: float) -> str:
    return f"{100 * abs(bias):.1f} points too {'low' if bias < 0 else 'high'}"


def tested_claim(member: ArmAnswer, found: Confirmation) -> str:
    """The score of the student's settings on the locked test images, and how often those were used."""
    used = "once" if found.number == 1 else f"{found.number} times"
    return (
        f"On the {found.images} locked test images with a lesion, used {used} (plan {found.plan}, fixed "
        f"{found.sealed}), its settings, trained on all other images with {found.repetitions} seeds, give "
        f"{headline(member)}; the teacher {found.teacher.dice} %.{_warnings(found)}"
    )


def _warnings(found: Confirmation) -> str:
    return "".join(f" Warning: {warning}." for warning in found.warnings)


def _with_dice(entry: Candidate, dice: float) -> Candidate:
    scores = entry.student.scores
    overlap = dataclasses.replace(scores.overlap, dice=dice)
    student = dataclasses.replace(entry.student, scores=dataclasses.replace(scores, overlap=overlap))
    return dataclasses.replace(entry, student=student)
