"""What a person watching a study is told of its teacher, its images and its troubles."""

from __future__ import annotations

import dataclasses
import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from kdsearch.campaign.events import DataReady, JobStarted, LoadingData, SearchStarted, TrainingTeachers
from kdsearch.cli.confirming import ConfirmProgress
from kdsearch.cli.confirming import describe as describe_confirming
from kdsearch.cli.live import render
from kdsearch.cli.plain import describe
from kdsearch.cli.progress import Progress, what_images_show
from kdsearch.trials.recipe import Inherited
from kdsearch.trials.record import EpochReport, job_of_teacher, job_of_trial
from kdsearch.trials.scores import Cost
from kdsearch.workers.dispatcher import Requeued
from kdsearch.workers.jobs import CheckpointFailed, EpochEnded
from tests.front.students import recipe, scores

TEACHER = job_of_teacher("1a2b")
REPORT = EpochReport(epoch=3, epochs=20, train_loss=1, validation_loss=1, dice=0.743, learning_rate=0.1, seconds=9.0)
MATERIALS = SimpleNamespace(
    dataset=SimpleNamespace(has_lesion=[True, True, False, True], remarks=()),
    splits=SimpleNamespace(validation=(1, 2, 3)),
    teacher=SimpleNamespace(headline=scores(dice=0.868, params=1_187_441, macs=9).headline),
    unlabelled=None,
)
READY = DataReady(materials=MATERIALS, device="cpu")


@pytest.fixture
def progress():
    return Progress()


def _shown(progress):
    console = Console(file=io.StringIO(), width=140)
    console.print(render(progress, now=0.0))
    return console.file.getvalue()


def _handle(progress, *events):
    lines = []
    for event in events:
        progress.handle(event, now=0.0)
        lines.append(describe(event, progress))
    return lines


def test_teacher_s_epochs_and_troubles_are_told_as_the_teacher_s(progress):
    lines = _handle(
        progress,
        LoadingData(),
        TrainingTeachers(jobs=(TEACHER,)),
        EpochEnded(job=TEACHER, report=REPORT),
        CheckpointFailed(job=TEACHER, reason="no checkpoint: disk full"),
    )
    assert lines[2:] == ["teacher: epoch 3/20, Dice 74.3 %", "teacher: continues with no checkpoint: disk full"]
    assert "3/20" in _shown(progress)
    assert "no checkpoint: disk full" in _shown(progress)
    (line,) = _handle(progress, Requeued(job=TEACHER, reason="signal 9", attempt=1, retries=2))
    assert line == "teacher: signal 9; resumes with another worker (1 of 2)"
    assert "1 lost; their work resumed with others" in _shown(progress)


def test_several_teachers_are_told_apart(progress):
    others = tuple(job_of_teacher(name) for name in ("9f", "1a"))
    lines = _handle(
        progress,
        TrainingTeachers(jobs=others),
        EpochEnded(job=others[1], report=REPORT),
        EpochEnded(job=others[0], report=REPORT),
        Requeued(job=others[0], reason="signal 9", attempt=1, retries=2),
    )
    assert [line.split(":")[0] for line in lines] == ["", "teacher 2 of 2", "teacher 1 of 2", "teacher 1 of 2"]
    shown = _shown(progress)
    assert shown.count("3/20") == 2
    assert shown.index("teacher 1 of 2") < shown.index("teacher 2 of 2")


def test_the_only_teacher_that_is_trained_needs_no_number(progress):
    lines = _handle(progress, TrainingTeachers(jobs=(TEACHER,)), EpochEnded(job=TEACHER, report=REPORT))
    assert lines[1].startswith("teacher: epoch 3/20")


def test_teachers_of_folds_are_told_apart():
    progress, teachers = ConfirmProgress(), tuple(job_of_teacher(name) for name in ("9f", "1a"))
    progress.handle(TrainingTeachers(jobs=teachers), now=0.0)
    tenth = EpochEnded(job=teachers[1], report=dataclasses.replace(REPORT, epoch=10))
    progress.handle(tenth, now=0.0)
    assert describe_confirming(tenth, progress) == "teacher 2 of 2 for the folds: epoch 10/20"


def test_what_the_images_can_show_is_said_before_the_search(progress):
    (line,) = _handle(progress, READY)
    assert line.splitlines() == ["teacher: Dice 86.8 %, 1.19M params, 9 MACs", what_images_show(2)]
    assert "2 with a lesion compare students; less than about 34.7 points of Dice apart" in line
    _handle(progress, SearchStarted(records=(), target=3, page=""))
    assert what_images_show(2) in _shown(progress)


def test_unlabelled_images_are_counted_and_those_left_out(progress):
    part = SimpleNamespace(
        whole=SimpleNamespace(infos=[None] * 9, remarks=()), positions=(0, 1, 4), sources=("breast",)
    )
    materials = SimpleNamespace(**{**vars(MATERIALS), "unlabelled": part})
    (line,) = _handle(progress, DataReady(materials=materials, device="cpu"))
    said = "unlabelled 3 images of breast; 6 that belong together with validation or test images are left out"
    assert line.splitlines()[-1] == said
    _handle(progress, SearchStarted(records=(), target=3, page=""))
    assert said in _shown(progress)


def test_trial_s_epochs_are_told_by_its_number(progress):
    _handle(progress, READY, SearchStarted(records=(), target=3, page=""))
    _handle(progress, JobStarted(job=job_of_trial(7), recipe=recipe(), cost=Cost(params=5_550, macs=9)))
    lines = _handle(progress, EpochEnded(job=job_of_trial(7), report=REPORT), CheckpointFailed(job="00007", reason=""))
    assert lines == ["", "trial 7: has a checkpoint again"]
    assert "#7" in _shown(progress)
    assert "Dice 74.3 %" in _shown(progress)


def test_trial_that_begins_with_another_s_weights_says_so(progress):
    inherited = recipe().model_copy(update={"start": Inherited(donor=12, scratch_epochs=30)})
    (line,) = _handle(progress, JobStarted(job=job_of_trial(7), recipe=inherited, cost=Cost(params=5_550, macs=9)))
    assert line == "trial 7: started, path logits, 5.55k params, with weights of trial 12"
