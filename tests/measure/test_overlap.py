"""Dice and IoU against scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, jaccard_score

from kdsearch.measure.overlap import dice_per_image, empty_per_image, iou_per_image, predict_classes


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
    assert empty_per_image(predicted).tolist() == [False, False, True]


def test_image_without_lesion_has_no_dice():
    target = torch.zeros(2, 4, 4, dtype=torch.long)
    target[1, 0, 0] = 1
    dice = dice_per_image(torch.zeros(2, 4, 4, dtype=torch.long), target)
    assert math.isnan(dice[0])
    assert dice[1] == 0
    assert dice_per_image(target[:1], target[:1]).isnan().all()


@given(st.integers(min_value=0, max_value=2**32 - 1), st.integers(min_value=2, max_value=4))
def test_agrees_with_scikit_learn(seed, classes):
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


def test_one_channel_is_a_threshold_and_several_are_the_largest():
    assert predict_classes(torch.tensor([[[[-1.0, 0.0, 1.0]]]])).tolist() == [[[0, 0, 1]]]
    assert predict_classes(torch.tensor([0.0, 2.0, 1.0]).reshape(1, 3, 1, 1)).tolist() == [[[1]]]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"must have one shape, got \(1, 4, 4\) and \(1, 4, 5\)"):
        dice_per_image(torch.zeros(1, 4, 4), torch.zeros(1, 4, 5))


def test_invented_class_costs_dice():
    target = torch.zeros(2, 4, 4, dtype=torch.long)
    target[0, 0] = 1
    predicted = target.clone()
    predicted[0, 3] = 2
    predicted[1, 3] = 2
    assert dice_per_image(predicted, target)[0] == pytest.approx(0.5)
    assert iou_per_image(predicted, target)[0] == pytest.approx(0.5)
    assert dice_per_image(predicted, target)[1].isnan()
