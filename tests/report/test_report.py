"""The interactive chart works offline; tables have the same content in every format."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re

import pytest
from rich.console import Console

from kdsearch.config.study import Reference, StudyConfig
from kdsearch.report.charts import front_page
from kdsearch.report.table import FrontTable, competitive, front_csv, front_json
from kdsearch.statistics.selection import NOTHING_KNOWN
from kdsearch.trials.recipe import Inherited
from tests.front.students import scores, student

STUDENTS = [student(0, 0.6, 1_000), student(1, 0.7, 50_000, path="none"), student(2, 0.5, 60_000, path="hidden")]
FRONT = STUDENTS[:2]


def _page(*references):
    study = StudyConfig(name="t", reference_points=references)
    return front_page(study, students=STUDENTS, front=FRONT, teacher=scores(dice=0.85, params=3_000_000, macs=10))


def test_page_loads_nothing_from_the_network():
    page = _page()
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert "Plotly.newPlot" in page


def test_page_holds_students_teacher_references_and_recipes():
    reference = Reference.model_validate({"label": "Somebody 2020", "dice": 0.9, "params": "2M"})
    page = _page(reference)
    for text in ("Somebody 2020", "teacher", "trial 2", "on the front", "distillation.temperature: 2", "Study t"):
        assert text in page


def test_study_without_students_still_gets_a_page():
    assert "Plotly.newPlot" in front_page(StudyConfig(name="t"), students=[], front=[], teacher=None)


def test_json_and_csv_agree():
    rows = json.loads(front_json(FRONT))
    table = list(csv.DictReader(io.StringIO(front_csv(FRONT))))
    assert [row["trial"] for row in rows] == [int(row["trial"]) for row in table] == [0, 1]
    assert [row["scores"]["params"] for row in rows] == [int(row["params"]) for row in table]
    assert table[1]["distillation.temperature"] == ""
    assert table[0]["distillation.temperature"] == "2"


OBJECTIVES = ("dice", "params", "macs")


def _shown(members, *, width=80, everything=False, teacher=None):
    table = FrontTable(
        members=tuple(members), students=9, objectives=OBJECTIVES, teacher=teacher, standings=NOTHING_KNOWN
    )
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table.render(width=width, everything=everything))
    return console.export_text()


def test_front_table_names_students_in_words_and_ends_with_the_teacher():
    lines = _shown(FRONT, teacher=scores(dice=0.85, params=3_000_000, macs=70_000_000)).splitlines()
    assert lines[0].strip() == "Pareto front: 2 of 9 students"
    cells = [" ".join(line.split()) for line in lines]
    assert "trial Dice % params MACs student distilled by" in cells
    assert "0 ★ 60.0 1k 1k 4 stages from 16 channels, ×2 logits (KL)" in cells
    assert "1 ★ 70.0 50k 1k 4 stages from 16 channels, ×2 no teacher" in cells
    assert cells.index("85.0 3M 70M teacher") > cells.index("1 ★ 70.0 50k 1k 4 stages from 16 channels, ×2 no teacher")


@pytest.mark.parametrize("path", ["none", "regressor"])
def test_front_table_of_one_line_per_student_fits_80_columns(path):
    one = student(1234, 0.888, 999_400, 99_900_000, path=path)
    spec = one.recipe.student.model_copy(update={"growth": 1.34})
    lines = _shown([dataclasses.replace(one, recipe=one.recipe.model_copy(update={"student": spec}))]).splitlines()
    assert any("4 stages from 16 channels, ×1.34" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert sum("1234" in line or "channels" in line for line in lines) == 1


def test_uncompetitive_members_are_listed_only_on_request():
    members = [
        student(0, 0.60, 1_000, macs=9_000),
        student(1, 0.50, 2_000, macs=5_000),
        student(2, 0.55, 3_000, macs=4_000),
        student(3, 0.70, 4_000, macs=8_000),
    ]
    assert [one.number for one in competitive(members, OBJECTIVES)] == [0, 2, 3]
    assert "1 member is not listed" in _shown(members)
    assert "50.0" not in _shown(members)
    assert "50.0" in _shown(members, everything=True)
    assert "not listed" not in _shown(members, everything=True)


def test_member_that_is_best_for_another_objective_is_listed():
    fast = [dataclasses.replace(one, scores=dataclasses.replace(one.scores, latency_ms=ms)) for one, ms in
            [(student(0, 0.6, 1_000, macs=100), 3.0), (student(1, 0.5, 2_000, macs=200), 1.0)]]  # fmt: skip
    assert [one.number for one in competitive(fast, ("dice", "params", "macs"))] == [0]
    assert [one.number for one in competitive(fast, ("dice", "params", "latency_ms"))] == [0, 1]


def test_student_that_inherited_names_its_parent_in_the_table():
    first = FRONT[0]
    recipe = first.recipe.model_copy(update={"start": Inherited(donor=12, scratch_epochs=30)})
    inherited = dataclasses.replace(first, recipe=recipe, donor_epochs=50, donor_seconds=7.0)
    assert "from trial 12 after 50 epochs" in " ".join(_shown([inherited, *FRONT[1:]], width=200).split())
    rows = json.loads(front_json([inherited, *FRONT[1:]]))
    assert rows[0]["scores"]["epochs_with_donors"] == first.scores.epochs + 50
    assert rows[0]["scores"]["train_seconds_with_donors"] == first.scores.train_seconds + 7.0
    assert "epochs_with_donors" not in rows[1]["scores"]
    assert front_csv([inherited]).splitlines()[0].count("_with_donors") == 2
