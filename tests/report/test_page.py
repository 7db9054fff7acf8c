"""The report, its figures and its tables."""

from __future__ import annotations

import datetime

import pytest

from kdsearch.config.study import StudyConfig
from kdsearch.data.dataset import DataSummary
from kdsearch.front.dominance import front_of
from kdsearch.markdown import markdown_table
from kdsearch.report.figures import curves_figure, groups_figure, reference_size, steps_of
from kdsearch.report.page import ReportData, report_page
from kdsearch.report.table import (
    front_latex,
    front_markdown,
    latex_table,
    latex_text,
    paths_latex,
    paths_markdown,
    study_note,
)
from kdsearch.trials.record import EpochReport, TrialRecord, students_of
from tests.front.students import student

STUDY = StudyConfig(name="s")
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def _curve(epochs, seconds):
    return tuple(
        EpochReport(
            epoch=e,
            epochs=9,
            train_loss=1,
            validation_loss=1,
            dice=e / 10,
            learning_rate=0.1,
            seconds=seconds * e / epochs,
        )
        for e in range(1, epochs + 1)
    )


def _finished(number, dice, params, *, path="logits", minute=0):
    made = student(number, dice, params, path=path)
    return TrialRecord(
        number=number,
        outcome="finished",
        recipe=made.recipe,
        scores=made.scores,
        curve=_curve(9, 90.0),
        ended=START + datetime.timedelta(minutes=minute),
    )


RECORDS = (
    _finished(0, 0.5, 1_000, minute=5),
    _finished(1, 0.8, 10_000, path="none", minute=3),
    TrialRecord(
        number=2,
        outcome="stopped",
        recipe=student(2, 0.1, 5).recipe,
        curve=_curve(3, 30.0),
        reason="cannot reach <trial 1>",
        ended=START + datetime.timedelta(minutes=4),
    ),
    TrialRecord(number=3, outcome="rejected", recipe=None, ended=START),
)
STUDENTS = students_of(RECORDS)
FRONT = front_of(STUDENTS, STUDY.search.objectives)
DATA = DataSummary(fingerprint="abc", split="def", sources=("<s>",), images=9, train=5, validation=2, test=2)


def _story(**changes):
    values = {
        "study": STUDY,
        "records": RECORDS,
        "front": FRONT,
        "teacher": None,
        "data": DATA,
        "importances": {"student.width": 0.75, "training.learning_rate": 0.25},
        "overlays": {0: b"png"},
        "study_text": "name: s",
        "environment": "torch==1",
    }
    return ReportData(**(values | changes))


def test_page_has_every_section_and_loads_nothing():
    page = report_page(_story())
    for title in (
        "Pareto front",
        "Students on the front",
        "Learning curves",
        "What mattered",
        "How the search went",
        "Predictions",
        "Data",
        "Environment",
    ):
        assert f"<h2>{title}" in page
    assert "<script src" not in page
    assert "<link" not in page
    assert "data:image/png;base64,cG5n" in page
    assert "&lt;s&gt;: 9 images" in page
    assert "2 finished, 1 stopped, 1 rejected" in page


def test_empty_sections_are_left_out():
    page = report_page(_story(overlays={}, data=None, importances={}))
    assert "<h2>Predictions" not in page
    assert "<h2>Data" not in page
    assert "Too few trials have finished, or no setting varied." in page


def test_hypervolume_follows_the_order_in_which_trials_ended():
    steps = steps_of(RECORDS, most_params=1e6)
    assert [step.trials for step in steps] == [1, 2, 3]
    assert [step.compute_s for step in steps] == [90, 120, 210]
    assert [step.hypervolume for step in steps] == pytest.approx([0.8 * 2, 0.8 * 2, 0.5 * 3 + 0.3 * 2])


@pytest.mark.parametrize(("limit", "reference"), [(50_000, 50_000), (None, 100_000)])
def test_reference_is_the_limit_or_the_next_power_of_ten(limit, reference):
    assert reference_size(RECORDS, limit) == reference


def test_curves_show_the_front_and_where_trials_were_stopped():
    figure = curves_figure(RECORDS, {0})
    assert [trace.mode for trace in figure.data] == ["lines", "lines", "markers"]
    assert list(figure.data[2].x) == [3]
    assert "cannot reach" in figure.data[2].hovertemplate


@pytest.mark.parametrize(("by", "names"), [("path", ["none (1)", "logits (1)"]), ("size", ["up to 10k (2)"])])
def test_group_names_include_their_counts(by, names):
    assert [trace.name for trace in groups_figure(STUDENTS, by=by).data] == names


def test_paper_tables_are_valid_markdown_and_latex():
    row = (
        "| 0 | 50.0 | 20.0 | 1k | 1k | 4 stages from 16 channels, ×2, 2 standard convolutions per stage | logits (KL) |"
    )
    assert front_markdown(FRONT).splitlines()[2] == row
    assert paths_markdown(STUDENTS).splitlines()[2:] == [
        "| logits | 1 | 50.0 | 0.0 | 50.0 |",
        "| none | 1 | 80.0 | 0.0 | 80.0 |",
    ]
    latex = front_latex(FRONT)
    assert latex.startswith(r"\begin{tabular}{rrrrrrr}")
    assert r"Dice \% & $\pm$" in latex
    assert r"4 stages from 16 channels, $\times$2" in latex
    assert latex.count(r"\\") == 3
    assert r"\bottomrule" in paths_latex(STUDENTS)


def test_note_stays_within_mlflows_limit_and_names_what_it_leaves_out():
    many = [student(number, 0.5, 1_000 + number) for number in range(90)]
    note = study_note(STUDY, data=DATA, teacher=None, members=many, students=90)
    assert len(note) < 8_000
    assert "and 50 larger ones" in note
    assert "kdsearch pick STUDY.yaml" in note


def test_tables_escape_any_text():
    latex = latex_table(("a",), [(r"50 % & $5 #1 a_b {x} ~ ^ \ 2×3 ≤ 4",)])
    assert (
        r"50 \% \& \$5 \#1 a\_b \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} 2$\times$3 $\le$ 4 \\"
        in latex
    )
    assert markdown_table(("a", "b"), [("x|y", "two\nlines")]).splitlines()[-1] == r"| x\|y | two lines |"
    assert latex_text("trial_1 gains 2 % & more") == r"trial\_1 gains 2 \% \& more"
