"""The chart opens offline; tables say the same in every form."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re

from rich.console import Console

from kdsearch.config.study import Reference, StudyConfig
from kdsearch.report.chart import front_page
from kdsearch.report.table import front_csv, front_json, front_table
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


def test_page_of_a_study_without_students_is_a_page():
    assert "Plotly.newPlot" in front_page(StudyConfig(name="t"), students=[], front=[], teacher=None)


def test_forms_agree():
    rows = json.loads(front_json(FRONT))
    table = list(csv.DictReader(io.StringIO(front_csv(FRONT))))
    assert [row["trial"] for row in rows] == [int(row["trial"]) for row in table] == [0, 1]
    assert [row["scores"]["params"] for row in rows] == [int(row["params"]) for row in table]
    assert table[1]["distillation.temperature"] == ""
    assert table[0]["distillation.temperature"] == "2"


def test_table_fits_a_terminal_of_eighty_columns():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(front_table(FRONT))
    text = console.export_text()
    assert "60.0" in text
    assert "50k" in text
    assert "16×3, 2 std" in text


def test_student_that_inherited_names_its_donor_in_the_table():
    first = FRONT[0]
    recipe = first.recipe.model_copy(update={"start": Inherited(donor=12, scratch_epochs=30)})
    console = Console(width=80, record=True, file=io.StringIO())
    inherited = dataclasses.replace(first, recipe=recipe, donor_epochs=50, donor_seconds=7.0)
    console.print(front_table([inherited, *FRONT[1:]]))
    text = " ".join(console.export_text().split())
    assert "2 std, from 12 (+50 epochs)" in text
    assert "from: the trial whose weights it was cut from, and the epochs trained before" in text
    rows = json.loads(front_json([inherited, *FRONT[1:]]))
    assert rows[0]["scores"]["epochs_with_donors"] == first.scores.epochs + 50
    assert rows[0]["scores"]["train_seconds_with_donors"] == first.scores.train_seconds + 7.0
    assert "epochs_with_donors" not in rows[1]["scores"]
    assert front_csv([inherited]).splitlines()[0].count("_with_donors") == 2
