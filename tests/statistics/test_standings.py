"""Standings of students, computed only from their stored scores."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from kdsearch.report.table import FrontTable, front_csv, front_json, front_markdown
from kdsearch.statistics.selection import standing_metrics, standings_of
from kdsearch.trials.scores import PerImage
from tests.front.students import student

OBJECTIVES = ("dice", "params")


def _scored(number, mean, params, *, images=40, alike=1):
    dice = mean + 0.1 * np.repeat(np.random.default_rng(number).normal(size=images // alike), alike)
    one = student(number, float(dice.mean()), params)
    kept = PerImage(dice=tuple(dice), iou=tuple(dice / 2), empty=(0.0,) * images)
    return dataclasses.replace(one, scores=dataclasses.replace(one.scores, per_image=kept))


STUDENTS = (_scored(3, 0.5, 100), _scored(5, 0.8, 200), _scored(7, 0.5, 300))


def test_stability_is_reported_for_each_student_by_trial():
    found = standings_of(STUDENTS, OBJECTIVES, None)
    assert set(found) == {3, 5, 7}
    assert (found[3].stability, found[5].stability) == (1, 1)
    assert found[7].stability < 0.05
    assert found[5].corrected.low < found[5].corrected.dice < found[5].corrected.high
    assert found[7].corrected.dice == pytest.approx(found[5].corrected.dice, abs=0.02), (
        "the best student of at most its size"
    )


def test_images_that_belong_together_are_drawn_together():
    alike = [_scored(3, 0.5, 100, alike=4)]
    alone = standings_of(alike, OBJECTIVES, None)[3].corrected
    grouped = standings_of(alike, OBJECTIVES, [place // 4 for place in range(40)])[3].corrected
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(2, rel=0.25)


def test_only_dice_is_treated_as_uncertain():
    """A student with the fewest multiply-adds stays on the front whatever its Dice."""
    cheap = dataclasses.replace(STUDENTS[2], scores=dataclasses.replace(STUDENTS[2].scores, macs=1))
    found = standings_of((*STUDENTS[:2], cheap), ("dice", "params", "macs"), None)
    assert found[7].stability == 1


@pytest.mark.parametrize(
    ("students", "objectives"),
    [((), OBJECTIVES), ((student(0, 0.5, 100), *STUDENTS), OBJECTIVES), (STUDENTS, ("params",))],
)
def test_nothing_is_printed_without_information(students, objectives):
    assert standings_of(students, objectives, None) == {}


def test_tables_show_front_stability():
    found = standings_of(STUDENTS, OBJECTIVES, None)
    front = STUDENTS[:2]
    console = Console(width=120, record=True, file=io.StringIO())
    table = FrontTable(members=front, students=3, objectives=OBJECTIVES, teacher=None, standings=found)
    console.print(table.render(width=console.width))
    shown = console.export_text()
    assert "expected" in shown
    assert "100 %" in shown
    assert "how often the student stays on the front" in shown
    assert "| trial | Dice % | expected % | stable |" in front_markdown(front, found).splitlines()[0]
    (row, _) = json.loads(front_json(front, found))
    assert row["standing"] == standing_metrics(found, 3)
    (first, _) = csv.DictReader(io.StringIO(front_csv(front, found)))
    assert float(first["corrected_dice"]) == found[3].corrected.dice
    assert "expected %" not in front_markdown(front)
