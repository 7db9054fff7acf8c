"""Scores as they are recorded."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from kdsearch.measure.scores import assemble, measure_overlap
from kdsearch.trials.scores import Cost, dump_scores, read_scores


def _maps(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor(rows).reshape(len(rows), 2, 2)


TARGET = _maps([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
PREDICTED = _maps([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])


def test_images_without_lesion_are_reported_apart():
    overlap = measure_overlap(PREDICTED, TARGET)
    assert (overlap.dice, overlap.images, overlap.empty_images) == (0.5, 2, 2)
    assert overlap.empty_share == 0.5
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


def test_scores_are_given_per_source_where_there_are_several():
    scores = _scores(["a", "b", "a", "b"])
    metrics = scores.metrics()
    assert (metrics["dice"], metrics["a/dice"], metrics["b/dice"]) == (0.5, 1.0, 0.0)
    assert (metrics["a/empty_share"], metrics["b/empty_share"]) == (1.0, 0.0)
    assert "a/dice" not in _scores(["a"] * 4).metrics()


def test_source_without_lesions_has_no_dice_to_record():
    scores = _scores(["a", "a", "b", "b"])
    assert math.isnan(scores.by_source[1].overlap.dice)
    assert "b/dice" not in scores.metrics()
    assert scores.metrics()["b/empty_share"] == 0.5


def test_scores_survive_json_nan_included():
    scores = _scores(["a", "a", "b", "b"])
    again = read_scores(dump_scores(scores))
    assert again.metrics() == scores.metrics()
    assert again.overlap == scores.overlap


def test_every_image_s_figures_are_kept_in_single_precision():
    scores = _scores(["a"] * 4)
    again = read_scores(dump_scores(scores)).per_image
    for kept in (scores.per_image, again):
        assert kept.dice[:2] == (1.0, 0.0)
        assert kept.iou[:2] == (1.0, 0.0)
        assert all(math.isnan(value) for value in kept.dice[2:] + kept.iou[2:])
        assert kept.empty == (0.0, 0.0, 1.0, 0.0)
    assert len(dump_scores(scores)) < len(dump_scores(dataclasses.replace(scores, per_image=None))) + 120


def test_scores_from_before_schema_1_lack_images_alone():
    old = json.loads(dump_scores(_scores(["a"] * 4)))
    del old["schema"], old["per_image"]
    assert read_scores(json.dumps(old)) == dataclasses.replace(_scores(["a"] * 4), per_image=None)


def test_headline_says_the_three_that_matter():
    assert _scores(["a"] * 4).headline() == "Dice 50.0 %, 10 params, 20 MACs"
