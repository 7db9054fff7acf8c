"""The progress bar of ``Study.run`` and similar methods."""

from __future__ import annotations

import io

from rich.console import Console

from kdsearch.campaign.events import Resumed, SearchStarted, TrainingTeachers, TrialEnded, Waiting
from kdsearch.trials.record import EpochReport, TrialRecord, job_of_teacher
from kdsearch.workers.jobs import EpochEnded
from kdsearch.workflow.progress import progress_bar
from tests.front.students import student

TEACHER = job_of_teacher("abc")
REPORT = EpochReport(epoch=3, epochs=30, train_loss=0.5, validation_loss=0.5, dice=0.61, learning_rate=0.1, seconds=1.0)


def _ended(number, outcome="finished", dice=0.5) -> TrialEnded:
    made = student(number, dice=dice, params=1000)
    scores = made.scores if outcome == "finished" else None
    return TrialEnded(record=TrialRecord(number=number, outcome=outcome, recipe=made.recipe, scores=scores))


def _shown(*events, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    with progress_bar(console) as show:
        for event in events:
            show(event)
    return console.file.getvalue()


def test_bar_shows_the_teacher_and_then_the_students():
    teacher = _shown(TrainingTeachers(jobs=(TEACHER,)), EpochEnded(job=TEACHER, report=REPORT), terminal=True)
    assert "teacher, Dice 61.0 %" in teacher
    assert "3/30" in teacher
    before = (_ended(0).record, _ended(1, "rejected").record)
    searching = SearchStarted(records=before, target=4, page="")
    students = _shown(searching, _ended(2, dice=0.7), _ended(3, "rejected"), terminal=True)
    assert "students, best Dice 70.0 %" in students
    assert "2/4" in students


def test_trouble_is_printed_above_the_bar():
    shown = _shown(Waiting(reason="disk full"), Resumed(), terminal=True)
    assert "waiting: cannot write to the Optuna database (disk full)" in shown
    assert "continuing" in shown


def test_log_gets_a_line_for_each_student():
    searching = SearchStarted(records=(), target=4, page="")
    shown = _shown(searching, _ended(0), _ended(1, "failed"), terminal=False)
    assert [line.partition(" (")[2] for line in shown.splitlines()] == ["1 of 4)", "2 of 4)"]
    assert shown.startswith("trial 0: Dice 50.0 %")
