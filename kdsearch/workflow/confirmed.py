"""Chooses among confirmed students, by what was confirmed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from kdsearch.config.quantity import format_quantity
from kdsearch.front.rules import Budget, Candidate, Rule
from kdsearch.statistics.confirmation import ArmAnswer, Confirmation


def with_confirmed_dice(candidates: Sequence[Candidate], found: Confirmation) -> list[Candidate]:
    """Those of the candidates that were confirmed, with their confirmed Dice in place of the search's."""
    return [
        _with_dice(entry, member.dice.mean)
        for entry in candidates
        if (member := found.member_of(entry.student.number)) is not None
    ]


def rank_confirmed(within: Sequence[Candidate], rule: Rule, found: Confirmation) -> list[Candidate]:
    """The candidates, the one to take first; ``smallest-within`` considers those that are shown to be no worse.

    The reference is the largest confirmed member, whether or not it is within the budget; in plans of the earlier rule
    it is the best within the budget. If no candidate is shown to be no worse, the best one is taken.
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
    """Why it was taken, in one sentence; ``count`` is how many confirmed students are within the budget."""
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
        return f"is the smallest of {among} that is no worse than the best by more than {points:g} points"
    largest, name = found.members[-1], str(chosen.student.number)
    if len(found.members) == 1:
        return "is the only confirmed student"
    if name == largest.id:
        return f"is the largest of {among}, and no smaller one is shown to be no worse by more than {points:g} points"
    low = next((one.difference.low for one in found.as_good if one.smaller == name), -1.0)
    if low <= -rule.tolerance:
        return (
            f"has the best confirmed Dice of {among}; none of them is shown to be no worse than {largest.name}, the "
            f"largest, by more than {points:g} points"
        )
    same = math.isclose(points, sealed)
    planned = "" if same else f" (the plan's margin is {sealed:g} points; its error rate holds for that one)"
    return (
        f"is the smallest of {among} that is shown to be no worse than {largest.name}, the largest, by more than "
        f"{points:g} points{planned}"
    )


def headline(member: ArmAnswer) -> str:
    """``Dice 75.3 [73.1, 77.2] %, 18k params, 5M MACs``."""
    return f"Dice {member.dice} %, {format_quantity(member.params)} params, {format_quantity(member.macs)} MACs"


def claim(member: ArmAnswer, found: Confirmation) -> str:
    """What may be said of the student, and what of it distillation gave."""
    pilot = "" if found.repetitions > 2 else " (a pilot)"
    flattered = "" if member.selection_bias is None else f"; the search's Dice was {_too_high(member.selection_bias)}"
    text = (
        f"Confirmed out of fold on {found.images} images, {found.folds} folds, {found.repetitions} "
        f"repetition{'s' * (found.repetitions > 1)}{pilot}, plan {found.plan}: its recipe gives "
        f"{headline(member)}{flattered}.{_warnings(found)}"
    )
    effect = next((effect for effect in found.effects if effect.member == member.id), None)
    if effect is None:
        return text
    verdict = "exploratory, not tested by itself" if effect.exploratory else effect.verdict
    return f"{text} Distillation gave it {effect.difference} points over its twin: {verdict}."


def _too_high(bias: float) -> str:
    return f"{100 * abs(bias):.1f} points too {'low' if bias < 0 else 'high'}"


def tested_claim(member: ArmAnswer, found: Confirmation) -> str:
    """What the locked images said of the student's recipe, and how often they were opened."""
    opened = "once" if found.number == 1 else f"{found.number} times"
    return (
        f"On the {found.images} locked test images with a lesion, which were opened {opened} (plan {found.plan}, "
        f"sealed {found.sealed}), its recipe, trained on all others with {found.repetitions} seeds, gives "
        f"{headline(member)}; the teacher {found.teacher.dice} %.{_warnings(found)}"
    )


def _warnings(found: Confirmation) -> str:
    return "".join(f" Mind: {warning}." for warning in found.warnings)


def _with_dice(entry: Candidate, dice: float) -> Candidate:
    scores = entry.student.scores
    overlap = dataclasses.replace(scores.overlap, dice=dice)
    student = dataclasses.replace(entry.student, scores=dataclasses.replace(scores, overlap=overlap))
    return dataclasses.replace(entry, student=student)
