"""Scores of several classes, against scikit-learn, torchmetrics and numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score

from kdsearch.config.task import IGNORED
from kdsearch.data.frame import Frame
from kdsearch.data.native import NativeMask
from kdsearch.measure.scores import (
    dice_by_class,
    dice_per_image,
    empty_per_image,
    mean_dice,
    mean_iou,
    measure_overlap,
    predict_classes,
)
from kdsearch.measure.surface import measure_native, predicted_classes
from kdsearch.models.encoders import declare_missing_operators
from kdsearch.trials.scores import Scores

NAMES = ("lesion", "cyst", "vessel")


def _maps(seed: int, *, count: int = 6, ignored: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    target = rng.choice(4, (count, 12, 15), p=[0.6, 0.2, 0.15, 0.05]).astype(np.uint8)
    predicted = np.where(rng.random(target.shape) < 0.7, target, rng.integers(0, 4, target.shape)).astype(np.uint8)
    target[rng.random(target.shape) < ignored] = IGNORED
    return torch.from_numpy(predicted).long(), torch.from_numpy(target)


def _counted(predicted, target):
    known = target != IGNORED
    return target[known].numpy(), predicted[known].numpy()


@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_dice_of_each_class_equals_scikit_learn_s_f1(ignored):
    predicted, target = _maps(0, ignored=ignored)
    found = dice_by_class(predicted, target, classes=3)
    for place in range(len(target)):
        expected = f1_score(*_counted(predicted[place], target[place]), labels=[1, 2, 3], average=None)
        np.testing.assert_allclose(found[place], expected)
    np.testing.assert_allclose(dice_per_image(predicted, target), found.mean(dim=1))


def test_mean_over_classes_of_the_mean_over_images_equals_torchmetrics():
    declare_missing_operators()
    from torchmetrics.segmentation import DiceScore

    predicted, target = _maps(1)
    theirs = DiceScore(num_classes=4, include_background=False, average="none", input_format="index")
    expected = theirs(predicted, target.long()).mean().item()
    overlap = measure_overlap(predicted, target, names=NAMES)
    assert overlap.dice == pytest.approx(expected, abs=1e-6) == mean_dice(predicted, target, classes=3)
    assert [one.name for one in overlap.classes] == list(NAMES)
    assert np.mean([one.dice for one in overlap.classes]) == pytest.approx(overlap.dice)


@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_mean_iou_is_that_of_all_pixels_of_the_data_set(ignored):
    predicted, target = _maps(2, ignored=ignored)
    assert mean_iou(predicted, target, classes=4) == pytest.approx(
        jaccard_score(*_counted(predicted, target), average="macro")
    )
    assert measure_overlap(predicted, target, names=NAMES).miou == mean_iou(predicted, target, classes=4)


def test_class_in_neither_map_has_no_dice_and_an_invented_one_has_0():
    target = torch.zeros(2, 4, 4, dtype=torch.uint8)
    predicted = torch.zeros(2, 4, 4, dtype=torch.long)
    target[:, 0], predicted[:, 0], predicted[1, 1] = 1, 1, 2
    found = dice_by_class(predicted, target, classes=3)
    assert found[0, 0] == 1
    assert found[:, 2].isnan().all()
    assert found[0, 1].isnan()
    assert found[1, 1] == 0
    assert dice_per_image(predicted, target).tolist() == [1.0, 0.5]
    overlap = measure_overlap(predicted, target, names=NAMES)
    assert overlap.dice == 0.5, "the mean of 1 (lesion) and 0 (cyst), without the vessel, which no image has"
    assert [one.images for one in overlap.classes] == [2, 1, 0]
    assert math.isnan(overlap.classes[2].dice)


def test_negative_image_counts_in_specificity_only():
    target = torch.zeros(2, 4, 4, dtype=torch.uint8)
    predicted = torch.zeros(2, 4, 4, dtype=torch.long)
    target[0, 0], predicted[0, 0], predicted[1, 3] = 2, 2, 1
    overlap = measure_overlap(predicted, target, names=NAMES)
    assert (overlap.dice, overlap.images, overlap.empty_images, overlap.specificity) == (1.0, 1, 1, 0.0)


def test_prediction_in_ignored_pixels_is_no_prediction():
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    target[0, 2:] = IGNORED
    predicted = (target == IGNORED).long()
    assert empty_per_image(predicted, target).tolist() == [True]
    assert dice_per_image(predicted, target).isnan().all()


def test_metrics_have_a_row_for_each_class():
    predicted, target = _maps(3)
    overlap = measure_overlap(predicted, target, names=("lesion", "a b", "c"))
    scores = Scores(
        overlap=overlap,
        by_source=(),
        params=1,
        macs=1,
        flops=2,
        tool_counts=(),
        train_seconds=1,
        epochs=1,
        best_epoch=1,
    )
    assert {"dice", "iou", "miou", "dice_lesion", "dice_a_b", "dice_c"} <= set(scores.metrics())


def test_scores_at_original_resolution_are_means_over_classes():
    target = np.zeros((20, 30), np.uint8)
    target[:10, :15], target[10:, 15:] = 1, 2
    logits = np.stack([(target == number).astype(np.float32) for number in range(4)])
    invented = logits.copy()
    invented[3, :2, 20:], invented[0, :2, 20:] = 2, 0
    masks = [NativeMask.of(target, tolerance_px=1.0)] * 2
    found = measure_native([logits, invented], masks, Frame(height=20, width=30))
    assert found.dice == (1.0, pytest.approx(2 / 3))
    assert found.nsd == (1.0, pytest.approx(2 / 3))
    assert found.hd95 == (0.0, pytest.approx(1 / 3))
    assert found.by_class[:2] == ((1.0, 1.0), (1.0, 1.0))
    assert math.isnan(found.by_class[2][0])
    assert found.by_class[2][1] == 0
    assert found.mean_dice == pytest.approx(2 / 3), "over classes of the mean over images"


def test_largest_logit_is_the_class_and_one_channel_is_a_threshold():
    logits = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    for maps in (logits, logits[:, :1]):
        expected = predict_classes(maps).numpy()
        np.testing.assert_array_equal([predicted_classes(one) for one in maps.numpy()], expected)
