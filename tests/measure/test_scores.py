"""Scores as they are recorded."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, jaccard_score

from kdsearch.measure.scores import (
    assemble,
    dice_per_image,
    empty_per_image,
    iou_per_image,
    measure_overlap,
    predict_classes,
)
from kdsearch.trials.scores import Cost, dump_scores, read_scores


def _maps(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor(rows).reshape(len(rows), 2, 2)


TARGET = _maps([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
PREDICTED = _maps([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])


def test_negative_images_are_reported_separately():
    overlap = measure_overlap(PREDICTED, TARGET)
    assert (overlap.dice, overlap.images, overlap.empty_images) == (0.5, 2, 2)
    assert overlap.specificity == 0.5
    assert overlap.dice_std == pytest.approx(0.5)


def _scores(sources: list[str]):
    return assemble(
        predicted=PREDICTED,
        target=TARGET,
        sources=sources,
        cost=Cost(params=10, macs=20),
        tool_counts=(),
        train_seconds=1.5,
        epochs=3,
        best_epoch=2,
    )


def test_scores_are_given_per_source_if_there_are_several():
    scores = _scores(["a", "b", "a", "b"])
    metrics = scores.metrics()
    assert (metrics["dice"], metrics["a/dice"], metrics["b/dice"]) == (0.5, 1.0, 0.0)
    assert (metrics["a/specificity"], metrics["b/specificity"]) == (1.0, 0.0)
    assert "a/dice" not in _scores(["a"] * 4).metrics()


def test_source_with_only_negative_images_records_no_dice():
    scores = _scores(["a", "a", "b", "b"])
    assert math.isnan(scores.by_source[1].overlap.dice)
    assert "b/dice" not in scores.metrics()
    assert scores.metrics()["b/specificity"] == 0.5


def test_scores_survive_json_including_nan():
    scores = _scores(["a", "a", "b", "b"])
    again = read_scores(dump_scores(scores))
    assert again.metrics() == scores.metrics()
    assert again.overlap == scores.overlap


def test_per_image_scores_are_stored_in_single_precision():
    scores = _scores(["a"] * 4)
    again = read_scores(dump_scores(scores)).per_image
    for kept in (scores.per_image, again):
        assert kept.dice[:2] == (1.0, 0.0)
        assert kept.iou[:2] == (1.0, 0.0)
        assert all(math.isnan(value) for value in kept.dice[2:] + kept.iou[2:])
        assert kept.empty == (0.0, 0.0, 1.0, 0.0)
    assert len(dump_scores(scores)) < len(dump_scores(dataclasses.replace(scores, per_image=None))) + 120


def test_scores_from_before_schema_1_lack_only_per_image_values():
    old = json.loads(dump_scores(_scores(["a"] * 4)))
    del old["schema"], old["per_image"]
    assert read_scores(json.dumps(old)) == dataclasses.replace(_scores(["a"] * 4), per_image=None)


def test_headline_shows_dice_params_and_macs():
    assert _scores(["a"] * 4).headline() == "Dice 50.0 %, 10 params, 20 MACs"


def test_half_overlap_by_hand():
    predicted, target = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    predicted[0, 0, :] = 1
    target[0, 0, 2:] = 1
    target[0, 1, :2] = 1
    assert dice_per_image(predicted.long(), target.long()).item() == pytest.approx(2 * 2 / (4 + 4))
    assert iou_per_image(predicted.long(), target.long()).item() == pytest.approx(2 / 6)


def test_perfect_and_disjoint_and_empty_prediction():
    target = torch.zeros(3, 4, 4, dtype=torch.long)
    target[:, 0, 0] = 1
    predicted = torch.stack([target[0], 1 - target[0], torch.zeros(4, 4, dtype=torch.long)])
    assert dice_per_image(predicted, target).tolist() == [1.0, 0.0, 0.0]
    assert empty_per_image(predicted, target).tolist() == [False, False, True]


def test_negative_image_has_no_dice():
    target = torch.zeros(2, 4, 4, dtype=torch.long)
    target[1, 0, 0] = 1
    dice = dice_per_image(torch.zeros(2, 4, 4, dtype=torch.long), target)
    assert math.isnan(dice[0])
    assert dice[1] == 0
    assert dice_per_image(target[:1], target[:1]).isnan().all()


@given(st.integers(min_value=0, max_value=2**32 - 1), st.integers(min_value=2, max_value=4))
def test_dice_and_iou_agree_with_scikit_learn(seed, classes):
    rng = np.random.default_rng(seed)
    predicted, target = rng.integers(0, classes, (2, 1, 8, 8))
    target[0, 0, 0] = 1
    present = sorted(set(np.unique(target)) - {0})
    flat = {
        "y_true": target.ravel(),
        "y_pred": predicted.ravel(),
        "labels": present,
        "average": "macro",
        "zero_division": 0,
    }
    a, b = torch.from_numpy(predicted), torch.from_numpy(target)
    assert dice_per_image(a, b).item() == pytest.approx(f1_score(**flat))
    assert iou_per_image(a, b).item() == pytest.approx(jaccard_score(**flat))


def test_one_channel_uses_a_threshold_and_several_use_argmax():
    assert predict_classes(torch.tensor([[[[-1.0, 0.0, 1.0]]]])).tolist() == [[[0, 0, 1]]]
    assert predict_classes(torch.tensor([0.0, 2.0, 1.0]).reshape(1, 3, 1, 1)).tolist() == [[[1]]]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"must have the same shape, got \(1, 4, 4\) and \(1, 4, 5\)"):
        dice_per_image(torch.zeros(1, 4, 4), torch.zeros(1, 4, 5))


def test_predicting_an_absent_class_lowers_dice():
    target = torch.zeros(2, 4, 4, dtype=torch.long)
    target[0, 0] = 1
    predicted = target.clone()
    predicted[0, 3] = 2
    predicted[1, 3] = 2
    assert dice_per_image(predicted, target)[0] == pytest.approx(0.5)
    assert iou_per_image(predicted, target)[0] == pytest.approx(0.5)
    assert dice_per_image(predicted, target)[1].isnan()
