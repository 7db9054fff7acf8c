"""The front's chart."""

from __future__ import annotations

import dataclasses

import pytest

from kdsearch.config.study import StudyConfig
from kdsearch.report.charts import front_figure
from tests.front.students import scores


@pytest.mark.parametrize("dice", [0.0, 0.7])
def test_teacher_of_any_dice_is_drawn(dice):
    teacher = dataclasses.replace(scores(dice=dice, params=1000, macs=10))
    figure = front_figure(StudyConfig(name="a"), students=(), front=(), teacher=teacher)
    (mark,) = (trace for trace in figure.data if trace.text == ("teacher",))
    assert (mark.x, mark.y) == ((1000,), (pytest.approx(100 * dice),))
