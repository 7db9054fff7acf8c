"""Charts of the front, interactive and as an image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.study import StudyConfig
from kdsearch.report.charts import front_figure
from kdsearch.report.front_image import write_front_image
from tests.front.students import scores, student


@pytest.mark.parametrize("dice", [0.0, 0.7])
def test_teacher_of_any_dice_is_drawn(dice):
    teacher = dataclasses.replace(scores(dice=dice, params=1000, macs=10))
    figure = front_figure(StudyConfig(name="a"), students=(), front=(), teacher=teacher)
    (mark,) = (trace for trace in figure.data if trace.text == ("teacher",))
    assert (mark.x, mark.y) == ((1000,), (pytest.approx(100 * dice),))


STUDENTS = [student(number, 0.5 + number / 40, 500 * 3**number) for number in range(8)]
TEACHER = scores(dice=0.9, params=2_000_000, macs=10)


def _count(path, color):
    with Image.open(path) as image:
        assert image.width >= 900
        return int((np.asarray(image.convert("RGB")) == color).all(axis=2).sum())


def test_image_of_the_front_draws_the_teacher_if_its_size_is_known(tmp_path):
    vermilion = (0xD5, 0x5E, 0x00)
    unknown = dataclasses.replace(TEACHER, params=0)
    for name, teacher, drawn in (("with", TEACHER, True), ("without", None, False), ("unknown", unknown, False)):
        path = tmp_path / f"{name}.png"
        write_front_image(path, StudyConfig(name="a"), students=STUDENTS, teacher=teacher)
        assert (_count(path, vermilion) > 100) == drawn


def test_image_of_few_students_is_drawn(tmp_path):
    blue = []
    for students in ([], STUDENTS[:1]):
        write_front_image(tmp_path / "front.png", StudyConfig(name="a"), students=students, teacher=None)
        blue.append(_count(tmp_path / "front.png", (0x00, 0x72, 0xB2)))
    assert blue[0] < blue[1], "first only the legend, then also a star"
