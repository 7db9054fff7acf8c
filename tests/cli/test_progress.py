"""What the terminal and the log show of a running study or confirmation."""

from __future__ import annotations

import dataclasses
import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from kdsearch.campaign.events import (
    DataReady,
    Estimated,
    JobStarted,
    LoadingData,
    Resumed,
    SearchStarted,
    TrackingDown,
    TrackingRestored,
    TrainingTeachers,
    TrialEnded,
    Waiting,
)
from kdsearch.cli.progress import Progress, noise_of
from kdsearch.cli.view import describe, render
from kdsearch.confirm.driver import FoldScored, MemberDropped, PlanFixed
from kdsearch.confirm.plan import make_plan
from kdsearch.confirm.store import FoldResult
from kdsearch.trials.recipe import Inherited
from kdsearch.trials.record import EpochReport, TrialRecord, job_of_teacher, job_of_trial
from kdsearch.trials.scores import Cost
from kdsearch.workers.dispatcher import Requeued
from kdsearch.workers.jobs import CheckpointFailed, EpochEnded
from tests.confirm.candidates import distilled
from tests.front.students import recipe, scores, student

TEACHER = job_of_teacher("1a2b")
REPORT = EpochReport(epoch=3, epochs=20, train_loss=1, validation_loss=1, dice=0.743, learning_rate=0.1, seconds=9.0)
LAST = dataclasses.replace(REPORT, epoch=20)
MATERIALS = SimpleNamespace(
    dataset=SimpleNamespace(has_foreground=[True, True, False, True], remarks=()),
    splits=SimpleNamespace(validation=(1, 2, 3)),
    teacher=SimpleNamespace(headline=scores(dice=0.868, params=1_187_441, macs=9).headline),
    unlabelled=None,
)
READY = DataReady(materials=MATERIALS, device="cpu")


@pytest.fixture
def progress():
    return Progress()


def _shown(progress, *, now=0.0):
    console = Console(file=io.StringIO(), width=140)
    console.print(render(progress, now=now))
    return console.file.getvalue()


def _handle(progress, *events):
    lines = []
    for event in events:
        progress.handle(event, now=0.0)
        lines.append(describe(event, progress))
    return lines


def test_epochs_and_troubles_of_the_teacher_are_shown(progress):
    lines = _handle(
        progress,
        LoadingData(),
        TrainingTeachers(jobs=(TEACHER,)),
        EpochEnded(job=TEACHER, report=LAST),
        CheckpointFailed(job=TEACHER, reason="no checkpoint: disk full"),
    )
    assert lines[2:] == ["teacher: epoch 20/20, Dice 74.3 %", "teacher: continues with no checkpoint: disk full"]
    assert "20/20" in _shown(progress)
    assert "no checkpoint: disk full" in _shown(progress)
    (line,) = _handle(progress, Requeued(job=TEACHER, reason="signal 9", attempt=1, retries=2))
    assert line == "teacher: signal 9; another worker resumes it (retry 1 of 2)"
    assert "1 died; other workers resumed their work" in _shown(progress)


def test_several_teachers_have_numbers(progress):
    others = tuple(job_of_teacher(name) for name in ("9f", "1a"))
    lines = _handle(
        progress,
        TrainingTeachers(jobs=others),
        EpochEnded(job=others[1], report=LAST),
        EpochEnded(job=others[0], report=LAST),
    )
    assert [line.split(":")[0] for line in lines] == ["", "teacher 2 of 2", "teacher 1 of 2"]
    shown = _shown(progress)
    assert shown.count("20/20") == 2
    assert "teacher 1 of 2" in shown
    assert "teacher 2 of 2" in shown


def test_log_has_every_tenth_epoch_of_the_teacher_and_the_last(progress):
    lines = _handle(
        progress,
        TrainingTeachers(jobs=(TEACHER,)),
        *(EpochEnded(job=TEACHER, report=dataclasses.replace(REPORT, epoch=n, epochs=25)) for n in range(1, 26)),
    )
    assert [line.split(",")[0] for line in lines if line] == [f"teacher: epoch {n}/25" for n in (10, 20, 25)]


def test_noise_of_the_images_is_shown_before_the_search(progress):
    (line,) = _handle(progress, READY)
    assert line.splitlines() == ["teacher   Dice 86.8 %, 1.19M params, 9 MACs", noise_of(2)]
    assert "2 validation images with a lesion: differences below about 34.7 Dice points are within noise" in line
    _handle(progress, SearchStarted(records=(), target=3, page=""))
    assert noise_of(2) in _shown(progress)


def test_time_is_estimated_before_the_search_and_taken_from_its_pace_later(progress):
    about = Estimated(teacher_s=60, students_s=300, students=26, workers=2, at_most=False)
    (line,) = _handle(progress, about)
    assert line == "time      about 6 min for the teacher and 26 students, 2 at a time"
    assert line in _shown(progress)
    _handle(progress, READY, SearchStarted(records=(), target=26, page=""))
    assert "about 4 min left" in _shown(progress, now=60.0)
    progress.ended_here = 13
    progress.records = {n: TrialRecord(number=n, recipe=recipe(), outcome="stopped") for n in range(13)}
    assert "about 2 min left" in _shown(progress, now=120.0)
    stopped = dataclasses.replace(about, teacher_s=0, at_most=True)
    assert _handle(progress, stopped) == ["time      at most about 5 min for 26 students, 2 at a time"]


def test_unlabelled_images_are_counted(progress):
    part = SimpleNamespace(
        whole=SimpleNamespace(infos=[None] * 9, remarks=()), positions=(0, 1, 4), sources=("breast",)
    )
    materials = SimpleNamespace(**{**vars(MATERIALS), "unlabelled": part})
    (line,) = _handle(progress, DataReady(materials=materials, device="cpu"))
    expected = "unlabelled 3 images from breast; 6 that belong to validation or test images are left out"
    assert line.splitlines()[-1] == expected
    _handle(progress, SearchStarted(records=(), target=3, page=""))
    assert expected in _shown(progress)


def test_trial_is_shown_by_its_number(progress):
    _handle(progress, READY, SearchStarted(records=(), target=3, page=""))
    _handle(progress, JobStarted(job=job_of_trial(7), recipe=recipe(), cost=Cost(params=5_550, macs=9)))
    lines = _handle(progress, EpochEnded(job=job_of_trial(7), report=REPORT), CheckpointFailed(job="00007", reason=""))
    assert lines == ["", "trial 7: has a checkpoint again"]
    assert "trial 7" in _shown(progress)
    assert "logits, 5.55k params" in _shown(progress)
    assert "Dice 74.3 %" in _shown(progress)


def test_trial_that_inherits_names_its_parent(progress):
    inherited = recipe().model_copy(update={"start": Inherited(donor=12, scratch_epochs=30)})
    (line,) = _handle(progress, JobStarted(job=job_of_trial(7), recipe=inherited, cost=Cost(params=5_550, macs=9)))
    assert line == "trial 7: started, logits, 5.55k params, with weights of trial 12"


def test_view_shows_progress_time_left_and_the_best_of_each_size(progress):
    _handle(progress, READY, SearchStarted(records=(), target=4, page=""))
    made = [student(0, 0.7, 9_000), student(1, 0.6, 8_000), student(2, 0.8, 90_000)]
    records = [TrialRecord(number=one.number, outcome="finished", recipe=one.recipe, scores=one.scores) for one in made]
    lines = _handle(progress, *(TrialEnded(record=record) for record in records))
    assert lines[0] == "trial 0: Dice 70.0 %, 9k params (1 of 4)"
    _handle(progress, TrialEnded(record=TrialRecord(number=3, outcome="rejected", recipe=None)))
    shown = " ".join(_shown(progress, now=30.0).split())
    assert "trials 3 of 4 done, 1 rejected before training · about 10 s left" in shown
    assert "best up to 10k trial 0 Dice 70.0 % 9k params logits" in shown
    assert "best up to 100k trial 2 Dice 80.0 % 90k params logits" in shown


def test_troubles_are_shown_until_they_are_over(progress):
    waiting, away = Waiting(reason="locked", what="the database is busy"), TrackingDown(reason="no route")
    lines = _handle(progress, LoadingData(), waiting, away)
    assert lines[1] == "waiting: the database is busy (locked); retrying, nothing is lost"
    assert "kdsearch sync uploads the rest later" in lines[2]
    assert "the database is busy" in _shown(progress)
    assert "no route" in _shown(progress)
    _handle(progress, Resumed(), TrackingRestored())
    assert "busy" not in _shown(progress)
    assert "no route" not in _shown(progress)


def test_confirmation_shows_each_network_and_drops_what_is_not_trained(progress, tiny):
    members = [distilled(3, 0.72, 1_000), distilled(5, 0.82, 30_000)]
    plan = make_plan(tiny, members, {}, partitions=[["0", "1"]])
    sealed = PlanFixed(prepared=SimpleNamespace(plan=plan, seconds=80.0), number=1, when="now", results=())
    assert _handle(progress, sealed) == [""]
    assert "trainings 0 of 8 done · about 1 min left" in _shown(progress)
    job = plan.job(next(plan.repeats()))
    _handle(progress, EpochEnded(job=job, report=REPORT))
    assert "3/20" in _shown(progress)
    result = FoldResult(arm="3", repetition=0, fold=0, scores=scores(dice=0.743, params=1_000, macs=9))
    lines = _handle(progress, FoldScored(result=result), MemberDropped(arm="3", reason="behind trial 5"))
    assert lines == ["trial 3, repetition 1, fold 1: Dice 74.3 % (1 of 8)", "dropped trial 3: behind trial 5"]
    shown = " ".join(_shown(progress, now=2.0).split())
    assert "3/20" not in shown, "it is done"
    assert "trainings 1 of 7 done · about 12 s left" in shown
    assert "trial 3 1k params dropped Dice 74.3 %" in shown
    assert "twin of trial 5 30k params 0/2" in shown
