"""Statements about a choice: the runner-up, and the students statistically indistinguishable from it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from kdsearch.front.rules import Budget, Candidate, Rule
from kdsearch.statistics.selection import NOTHING_KNOWN, Corrected, Standing
from kdsearch.workflow.choosing import MOST_COMPARED, NOT_CONFIRMED, Candidates, as_asked_for, choose
from tests.front.students import student

IMAGES = np.random.default_rng(0).uniform(-0.05, 0.05, (40, 50))


class Scored:
    """Dice of fifty images for each student, around its mean; trial 9's are unknown."""

    def dice(self, of):
        return np.full(50, of.scores.dice) + IMAGES[of.number]

    groups = tuple(map(str, range(50)))

    def has_dice(self, of):
        return of.number != 9


def _candidates(*students, standings=NOTHING_KNOWN):
    return Candidates(
        students=students,
        study=SimpleNamespace(name="s"),
        study_id="id",
        complete=True,
        materials=None,
        pictures=Scored(),
        standings=standings,
        home=Path(),
        search_splits=None,
    )


KNOWN = _candidates(
    student(0, 0.60, 1_000),
    student(1, 0.70, 2_000),
    student(2, 0.701, 5_000),
    student(3, 0.702, 3_000),
    student(4, 0.80, 9_000),
    student(9, 0.702, 10),
)


def _choose(rule, **budget):
    candidates = [Candidate(student=entry) for entry in KNOWN.students]
    return choose(KNOWN, candidates, budget=Budget(**budget), rule=rule)


def test_students_indistinguishable_from_the_choice_are_listed_smallest_first():
    choice = _choose(Rule(), params=8_000)
    assert choice.candidate.student.number == 9  # the smaller of two with the same Dice
    assert choice.runner_up.student.number == 3
    assert [comparison.student.number for comparison in choice.as_good] == [1, 3, 2]
    assert "Trial 3 is statistically indistinguishable from it on these images" in choice.caveats["runner-up"]


def test_smaller_indistinguishable_students_are_reported_with_the_smallest():
    choice = as_asked_for(KNOWN, Candidate(student=KNOWN.find(2)))
    assert [comparison.student.number for comparison in choice.as_good] == [1, 3]
    assert choice.runner_up is None
    assert "2 of 4 compared students are smaller and statistically indistinguishable" in choice.caveats["similar"]
    assert "the smallest is trial 1: Dice 70.0 %" in choice.caution
    assert list(choice.caveats) == ["confirmed", "similar", "seed"], "no optimism: the trial was named"
    assert "Changing only the training seed moves a student's Dice" in choice.caution


def test_selection_bias_of_the_best_is_reported():
    many = _candidates(*(student(number, 0.5, 100 + number) for number in range(8)))
    choice = choose(many, [Candidate(student=one) for one in many.students], budget=Budget(), rule=Rule())
    assert 0.001 < choice.selection_bias < 0.03
    assert f"about {100 * choice.selection_bias:.1f} points too high" in choice.caveats["optimism"]


def test_clear_choice_has_no_caveat_about_other_students():
    choice = _choose(Rule())
    assert choice.candidate.student.number == 4
    assert choice.runner_up is None  # trial 9, whose weights are elsewhere
    assert (choice.caution, choice.as_good) == (NOT_CONFIRMED, ())


def test_smallest_within_counts_the_qualifying_students():
    choice = _choose(Rule(name="smallest-within", tolerance=0.01), params=5_000, min_dice=0.65)
    assert choice.sentence.startswith(
        "Trial 9 is the smallest student within 1 Dice point of the best of 4 students within params ≤ 5,000, "
        "dice ≥ 0.65 (4 qualify): "
    )


def test_only_students_nearest_in_dice_are_compared_if_there_are_many():
    many = _candidates(*(student(number, 0.5 + number / 1000, 100 + number) for number in range(10, 40)))
    choice = as_asked_for(many, Candidate(student=many.find(39)))
    assert [comparison.student.number for comparison in choice.comparisons] == list(range(39 - MOST_COMPARED, 39))


def test_stability_and_corrected_dice_of_a_choice_are_reported():
    standing = Standing(stability=0.62, corrected=Corrected(dice=0.741, low=0.702, high=0.78))
    known = _candidates(student(0, 0.6, 1_000), student(4, 0.8, 9_000), standings={4: standing})
    candidates = [Candidate(student=entry) for entry in known.students]
    choice = choose(known, candidates, budget=Budget(), rule=Rule())
    assert "stays on the front in 62 % of resamples of the validation images" in choice.caution
    assert "The best student up to this size is expected to reach 74.1 [70.2, 78.0] % Dice" in choice.caution
    assert as_asked_for(known, candidates[1]).standing == standing
    assert "resamples" not in as_asked_for(known, candidates[0]).caution
