"""The answers: from scores by fold to verdicts, on results whose truth is known."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest

from kdsearch.confirm.answers import answer, paired_rows
from kdsearch.confirm.plan import make_plan
from kdsearch.confirm.scoring import overtaken, twins_without_member
from kdsearch.confirm.store import TEACHER, FoldResult, ScoredImages
from kdsearch.report.confirmation import confirmation_markdown, sentences
from kdsearch.report.teacher import LITTLE_TO_LEARN
from kdsearch.statistics.confirmation import dump_confirmation
from kdsearch.trials.scores import NativeScores, PerImage
from kdsearch.workflow import confirmed
from tests.confirm.candidates import distilled, student
from tests.front.students import scores

IMAGES, NORMAL, FOLDS = 300, 20, 5
SMALL, LARGE, PLAIN = distilled(3, 0.72, 1000), distilled(5, 0.82, 30_000), student(8, 0.6, 1200)


@pytest.fixture
def plan(tiny):
    confirmed = tiny.confirm.model_copy(update={"repetitions": 3})
    return make_plan(
        tiny.model_copy(update={"confirm": confirmed}),
        [SMALL, LARGE, PLAIN],
        {},
        partitions=[[f"{repetition}-{fold}" for fold in range(FOLDS)] for repetition in range(3)],
    )


def _images(plan):
    rng = np.random.default_rng(0)
    area = rng.uniform(0.01, 0.3, IMAGES)
    area[:NORMAL] = 0
    return ScoredImages(
        groups=tuple(str(place // 2) for place in range(IMAGES)),
        sources=("here",) * IMAGES,
        labels=tuple("malignant" if place % 3 == 0 else "benign" for place in range(IMAGES)),
        lesion_fraction=tuple(area),
        folds=tuple(tuple(rng.integers(0, FOLDS, IMAGES).tolist()) for _ in plan.partitions),
        test_to_train=1 / (FOLDS - 1),
    )


def _results(plan, images, truth, *, seed=0, on_image=0.03, run=0.005):
    """Scores around each arm's true Dice: difficulty of the image, of image and recipe, and of the training."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 0.1, IMAGES)
    own = {arm: rng.normal(0, 0.04, IMAGES) for arm in truth}
    found = {}
    for arm, repetition, fold in itertools.product(truth, range(len(plan.partitions)), range(FOLDS)):
        here = np.asarray(images.folds[repetition]) == fold
        values = truth[arm] + difficulty + own[arm] + rng.normal(0, run) + rng.normal(0, on_image, IMAGES)
        dice = np.where(np.asarray(images.lesion_fraction) > 0, np.clip(values, 0, 1), np.nan)[here]
        kept = tuple(dice)
        lesion = ~np.isnan(dice)
        native = NativeScores(dice=kept, nsd=kept, hd95=tuple(np.where(lesion, 0.1, np.nan)))
        per_image = PerImage(dice=tuple(dice - 0.01), iou=kept, empty=tuple(np.where(lesion, 0.0, 1.0)))
        one = scores(dice=float(np.nanmean(dice)), params=1000, macs=1000)
        found[arm, repetition, fold] = FoldResult(
            arm=arm,
            repetition=repetition,
            fold=fold,
            scores=dataclasses.replace(one, per_image=per_image, native=native),
        )
    return found


def _answer(plan, truth, *, images=None, dropped=None, results=None):
    images = images or _images(plan)
    results = results or _results(plan, images, truth)
    return answer(plan, images, results, sealed="2026-01-01T00:00:00+00:00", number=1, dropped=dropped or {})


PLAIN_TRUTH = {TEACHER: 0.85, "3": 0.7, "3-twin": 0.7, "5": 0.8, "5-twin": 0.8, "8": 0.6}


def test_verdict_is_inconclusive_if_distillation_had_no_effect(plan):
    found = _answer(plan, PLAIN_TRUTH)
    assert found.verdict == "inconclusive"
    assert [effect.verdict for effect in found.effects] == ["exploratory"] * 2
    assert abs(found.pooled.mean) < 0.01
    assert found.front_gain.low < 0 < found.front_gain.high
    assert ": inconclusive." in " ".join(sentences(found))


@pytest.mark.parametrize(("effect", "verdict"), [(0.05, "helps"), (-0.05, "hurts")])
def test_effect_that_was_put_in_is_found(plan, effect, verdict):
    found = _answer(plan, PLAIN_TRUTH | {"3": 0.7 + effect, "5": 0.8 + effect})
    assert found.verdict == verdict
    assert [one.verdict for one in found.effects] == [verdict] * 2
    assert found.pooled.low < effect < found.pooled.high
    assert found.front_gain.mean == pytest.approx(effect, abs=0.015)


def test_member_is_described_by_what_was_put_in(plan):
    found = _answer(plan, PLAIN_TRUTH)
    small = found.member_of(3)
    assert small.dice.low < 0.7 < small.dice.high
    assert small.dice_at_size == pytest.approx(small.dice.mean - 0.01, abs=1e-6)
    assert small.selection_bias == pytest.approx(0.72 - small.dice_at_size)
    assert small.minus_teacher.mean == pytest.approx(-0.15, abs=0.02)
    assert small.minus_teacher.shown
    assert small.std_runs < small.std_images
    assert (small.found, small.missed, small.false_positives) == (1.0, 0.0, 0.0)
    assert [part.of for part in small.parts] == ["label benign", "label malignant", "smallest third"]
    assert small.parts[2].images == pytest.approx((IMAGES - NORMAL) / 3, abs=1)
    assert found.arm("3-twin").selection_bias is None, "no search chose it"
    assert (found.images, found.groups) == (IMAGES - NORMAL, (IMAGES - NORMAL) // 2)


def test_smaller_student_is_as_good_only_where_it_is(plan):
    worse, alike = _answer(plan, PLAIN_TRUTH), _answer(plan, PLAIN_TRUTH | {"3": 0.8, "3-twin": 0.8})
    assert [one.difference.shown for one in worse.as_good] == [False]
    assert [one.difference.shown for one in alike.as_good] == [True]
    assert "Trial 3 stays within 2 Dice points of trial 5" in confirmation_markdown(alike)


def test_pooled_effect_is_tested_by_itself(plan):
    """Its p is not adjusted for the pairs, and its interval has 95 %."""
    images = _images(plan)
    results = _results(plan, images, PLAIN_TRUTH | {"3": 0.71, "5": 0.81})
    found = _answer(plan, {}, images=images, results=results)
    before = _answer(dataclasses.replace(plan, testing="one family"), {}, images=images, results=results)
    assert found.pooled.p == pytest.approx(max(found.pooled.p_folds, found.pooled.p_images))
    assert before.pooled.p > found.pooled.p
    assert before.pooled.high - before.pooled.low > found.pooled.high - found.pooled.low


def test_pairs_get_verdicts_only_if_the_pooled_effect_is_shown(plan):
    """One pair gains what the other loses."""
    found = _answer(plan, PLAIN_TRUTH | {"3": 0.75, "5": 0.75})
    assert found.verdict == "inconclusive"
    small = found.effects[0]
    assert (small.verdict, small.difference.low > 0) == ("exploratory", True)
    assert "the pairs are exploratory" in " ".join(sentences(found))
    together = _answer(dataclasses.replace(plan, testing="one family"), PLAIN_TRUTH | {"3": 0.75, "5": 0.75})
    assert [effect.verdict for effect in together.effects] == ["helps", "hurts"]
    assert "fixed under an earlier rule and keeps it" in " ".join(sentences(together))


def test_smaller_students_are_tested_in_order_until_one_fails(tiny):
    three = [distilled(3, 0.72, 1000), distilled(4, 0.8, 10_000), distilled(5, 0.82, 100_000)]
    partitions = [[f"{repetition}-{fold}" for fold in range(FOLDS)] for repetition in range(3)]
    plan = make_plan(tiny, three, {}, partitions=partitions)
    truth = {TEACHER: 0.85, "3": 0.8, "3-twin": 0.8, "4": 0.8, "4-twin": 0.8, "5": 0.8, "5-twin": 0.8}
    alike, between = _answer(plan, truth), _answer(plan, truth | {"4": 0.7, "4-twin": 0.7})
    assert [(one.smaller, one.larger) for one in alike.as_good] == [("4", "5"), ("3", "5")]
    assert [one.difference.shown for one in alike.as_good] == [True, True]
    assert [one.difference.shown for one in between.as_good] == [False, False], "the first failure ends it"
    assert between.as_good[1].difference.low <= between.as_good[0].difference.low


def test_largest_member_with_an_answer_is_the_reference(tiny):
    three = [distilled(3, 0.72, 1000), distilled(4, 0.8, 10_000), distilled(5, 0.82, 100_000)]
    partitions = [[f"{repetition}-{fold}" for fold in range(FOLDS)] for repetition in range(3)]
    plan = make_plan(tiny, three, {}, partitions=partitions)
    truth = {TEACHER: 0.85, "3": 0.8, "3-twin": 0.8, "4": 0.8, "4-twin": 0.8}
    found = _answer(plan, truth, dropped={"5": "+5.0 points behind", "5-twin": "its member was dropped"})
    assert [(one.smaller, one.larger) for one in found.as_good] == [("3", "4")]
    assert "Trial 3 stays within 2 Dice points of trial 4" in " ".join(sentences(found))


def test_dropped_pairs_count_in_the_pooled_effect_for_the_folds_they_were_trained_in(plan):
    images = _images(plan)
    results = _results(plan, images, PLAIN_TRUTH | {"3": 0.75, "5": 0.75})
    results = {key: value for key, value in results.items() if key[0] not in {"5", "5-twin"} or key[1:] < (0, 2)}
    dropped = {"5": "+5.0 points behind", "5-twin": "its member was dropped"}
    found = _answer(plan, {}, images=images, results=results, dropped=dropped)
    stayed = _answer(
        dataclasses.replace(plan, testing="one family"), {}, images=images, results=results, dropped=dropped
    )
    assert stayed.pooled.mean == pytest.approx(0.05, abs=0.01), "of the pair that stayed"
    early = np.isin(np.asarray(images.folds[0]), (0, 1)).mean() / 3
    assert found.pooled.mean == pytest.approx(0.05 * (1 - early), abs=0.01), "both pairs cancel in two folds of fifteen"
    assert "the pooled effect includes the folds they were trained in" in " ".join(sentences(found))


def test_arm_that_failed_in_a_fold_has_no_answer_and_is_named(plan):
    images = _images(plan)
    results = _results(plan, images, PLAIN_TRUTH)
    results["3", 1, 2] = dataclasses.replace(results["3", 1, 2], scores=None, reason="the loss became nan in epoch 1")
    found = _answer(plan, PLAIN_TRUTH, images=images, results=results)
    assert [arm.id for arm in found.members] == ["5"]
    assert [effect.member for effect in found.effects] == ["5"]
    assert "Trial 3 has no result: failed in fold 3: the loss became nan in epoch 1." in sentences(found)


def test_answers_are_json(plan):
    found = json.loads(dump_confirmation(_answer(plan, PLAIN_TRUTH)))
    assert found["schema"] == 2
    assert found["plan"] == plan.digest
    assert found["effects"][0]["difference"]["mean"] == pytest.approx(0, abs=0.02)


def test_unknown_bounds_are_null_in_json(plan):
    """One group of images has no interval."""
    images = dataclasses.replace(_images(plan), groups=("all",) * IMAGES)
    found = json.loads(dump_confirmation(_answer(plan, PLAIN_TRUTH, images=images)))
    assert found["arms"][0]["dice"]["low"] is None


def test_member_that_is_worse_than_a_smaller_one_is_overtaken(plan):
    images = _images(plan)
    results = _results(plan, images, PLAIN_TRUTH | {"3": 0.85, "5": 0.7})
    done = [(0, fold) for fold in range(2)]
    assert overtaken(plan, images, results, done=done, dropped=()) == {}, "two folds have one degree of freedom"
    done = [(0, fold) for fold in range(FOLDS)]
    found = overtaken(plan, images, results, done=done, dropped=())
    assert set(found) == {"5"}
    assert "behind trial 3, which is at most as large, after 5 folds" in found["5"]
    assert twins_without_member(plan, found) == {"5-twin": "its member was dropped"}
    assert overtaken(plan, images, results, done=done[:1], dropped=()) == {}, "one training says too little"
    assert overtaken(plan, images, results, done=done, dropped=("5",)) == {}


def test_members_without_a_clear_order_are_kept(plan):
    images = _images(plan)
    results = _results(plan, images, PLAIN_TRUTH | {"3": 0.8, "5": 0.8})
    assert overtaken(plan, images, results, done=[(0, 0), (0, 1)], dropped=()) == {}
    everything = [(repetition, fold) for repetition in range(3) for fold in range(FOLDS)]
    worse = _results(plan, images, PLAIN_TRUTH | {"3": 0.85, "5": 0.7})
    assert overtaken(plan, images, worse, done=everything, dropped=()) == {}, "nothing is left to be saved"


def test_folds_that_repeat_are_one_difference_each(plan):
    """Sources are the same folds in each repetition, so that repetitions add no degrees of freedom."""
    images = dataclasses.replace(_images(plan), folds=(_images(plan).folds[0],) * 3)
    rows = np.random.default_rng(0).normal(size=(3, IMAGES))
    pair = paired_rows(images, rows, testing="pooled first")
    assert len(pair.by_fold) == FOLDS
    assert pair.by_fold[1] == pytest.approx(rows.mean(axis=0)[np.asarray(images.folds[0]) == 1].mean())
    assert len(paired_rows(_images(plan), rows, testing="pooled first").by_fold) == 3 * FOLDS
    one = dataclasses.replace(_images(plan), folds=((0,) * IMAGES,) * 3)
    assert paired_rows(one, rows, testing="pooled first").same_images, "of a test, whose repetitions are seeds"
    assert not paired_rows(one, rows, testing="one family").same_images


def test_dropped_member_has_no_answer(plan):
    images = _images(plan)
    results = {
        key: value for key, value in _results(plan, images, PLAIN_TRUTH).items() if key[0] not in {"5", "5-twin"}
    }
    found = _answer(plan, PLAIN_TRUTH, images=images, results=results, dropped={"5": "behind", "5-twin": "its member"})
    assert [arm.id for arm in found.arms] == ["3", "3-twin", "8"]
    assert dict(found.left_out) == {"5": "behind", "5-twin": "its member"}


def test_little_to_learn_is_reported_only_if_the_teacher_is_clearly_not_better(plan):
    found = _answer(plan, PLAIN_TRUTH)
    strong = " ".join(sentences(found))
    assert "The teacher is not significantly better" not in strong, "it is 5 points better than the best of them"
    weak = " ".join(sentences(_answer(plan, PLAIN_TRUTH | {TEACHER: 0.75})))
    assert "The teacher is not significantly better than the twin of trial 5, which was trained without it" in weak
    assert LITTLE_TO_LEARN in weak
    images = _images(plan)
    noisy = _results(plan, images, PLAIN_TRUTH | {TEACHER: 0.8}, on_image=0.3, run=0.03)
    open_question = " ".join(sentences(_answer(plan, {}, images=images, results=noisy)))
    assert LITTLE_TO_LEARN not in open_question
    assert "It may still be up to" in open_question


def test_warnings_of_the_plan_appear_on_the_model_card(plan):
    found = dataclasses.replace(_answer(plan, PLAIN_TRUTH), warnings=("the teacher may have seen them",))
    for say in (confirmed.claim, confirmed.tested_claim):
        assert "Warning: the teacher may have seen them." in say(found.members[0], found)


@pytest.mark.slow
def test_racing_drops_an_equal_member_in_at_most_5_of_100_studies(plan):
    """With the noise of small students: 8 points on an image and 1.5 on the mean of a training."""
    images, dropped = _images(plan), 0
    for seed in range(100):
        results = _results(plan, images, dict.fromkeys(PLAIN_TRUTH, 0.7), seed=seed, on_image=0.08, run=0.015)
        looks = [[(0, fold) for fold in range(count)] for count in range(2, FOLDS + 1)]
        looks += [looks[-1] + [(1, fold) for fold in range(count)] for count in range(1, FOLDS + 1)]
        dropped += any(overtaken(plan, images, results, done=done, dropped=()) for done in looks)
    assert dropped <= 5
