"""Overlays, and which images they show."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from kdsearch.report.overlays import PREDICTION, TILE, TRUTH, Row, choose_cases, colored, outlined, overlay_sheet


def test_cases_are_quantiles_and_not_extremes():
    dice = np.full(103, np.nan)
    dice[2:] = np.linspace(0, 1, 101)
    cases = choose_cases(dice)
    assert [(case.kind, round(100 * dice[case.position])) for case in cases] == [
        ("easy", 95),
        ("easy", 80),
        ("typical", 60),
        ("typical", 40),
        ("hard", 20),
        ("hard", 5),
    ]


def test_few_images_are_shown_once_each_and_negative_images_never():
    assert len(choose_cases(np.array([0.2, np.nan, 0.9]))) == 2
    assert choose_cases(np.array([np.nan])) == ()


def test_outlines_follow_the_masks_and_leave_the_inside_unchanged():
    truth, prediction = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    truth[10:30, 10:30] = True
    prediction[40:60, 40:60] = True
    pixels = np.asarray(outlined(np.full((64, 64), 100, np.uint8), truth, prediction, side=64))
    green, red = (pixels == TRUTH).all(axis=2), (pixels == PREDICTION).all(axis=2)
    assert green[10, 10]
    assert red[59, 59]
    assert not (green & ~truth).any()
    assert not (red & ~prediction).any()
    assert (pixels[20, 20] == 100).all()
    assert (pixels[50, 50] == 100).all()


def test_small_images_are_enlarged_and_large_ones_kept():
    mask = np.zeros((30, 60), bool)
    assert outlined(np.zeros((30, 60), np.uint8), None, mask, side=120).size == (120, 60)
    assert outlined(np.zeros((30, 60), np.uint8), None, mask, side=20).size == (60, 30)


def test_sheet_has_a_tile_for_each_network_and_row():
    mask = np.zeros((32, 32), bool)
    row = Row(
        caption="easy: 1", pixels=np.zeros((32, 32), np.uint8), truth=mask, predictions=(mask, mask), dice=(0.5, 0.6)
    )
    sheet = Image.open(io.BytesIO(overlay_sheet([row, row], ["teacher", "trial 3"], title="t")))
    assert sheet.width > 3 * TILE
    assert sheet.height > 2 * TILE


def test_image_in_which_no_class_is_predicted_stays_as_it_is():
    gray = np.full((8, 8), 100, np.uint8)
    for number in (0, 255):
        shown = np.asarray(colored(gray, np.full((8, 8), number, np.uint8), side=8))
        assert (shown == (100 if number == 0 else shown[0, 0, 0])).all()
