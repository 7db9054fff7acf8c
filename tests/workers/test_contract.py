"""The contract for every executor."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load

from kdsearch.campaign.preparation import read_images
from kdsearch.campaign.teachers import LackingTeacher
from kdsearch.config.ranges import IntRange
from kdsearch.config.search import RayConfig
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import open_teacher, teacher_folder
from kdsearch.search.recipes import choose
from kdsearch.workers.inline import InlineExecutor
from kdsearch.workers.jobs import ENDS, EpochEnded, Job, JobFailed, JobSucceeded, MaterialsFailed, WorkerReady
from kdsearch.workers.processes import ProcessExecutor
from kdsearch.workers.ray_cluster import RayExecutor
from tests.search.setups import ONE_THREAD, create_parent, finish, make_campaign, train_teachers, until, until_room

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def place(tiny, tiny_home):
    return create_parent(tiny, tiny_home)


@pytest.fixture(scope="module", params=["inline", "processes", pytest.param("ray", marks=pytest.mark.slow)])
def executor(request):
    """An executor with one worker, which has no job between tests."""
    match request.param:
        case "inline":
            made = InlineExecutor(ONE_THREAD)
        case "processes":
            made = ProcessExecutor(ONE_THREAD, workers=1)
        case _:
            pytest.importorskip("ray")
            made = RayExecutor(RayConfig(), ONE_THREAD, workers=1)
    yield made
    made.close()


@pytest.fixture
def job(tiny, place, tmp_path):
    def make(number=0, *, epochs=2, **student) -> Job:
        recipe = choose(tiny, lambda _, v: v.bounds[0] if isinstance(v, IntRange) else v.choice[1], seed=number)
        training = recipe.training.model_copy(update={"epochs": epochs})
        spec = recipe.student.model_copy(update=student)
        return Job(
            id=str(number),
            recipe=recipe.model_copy(update={"training": training, "student": spec}),
            materials=place,
            checkpoint=str(tmp_path / f"{number}.checkpoint"),
            subject="this",
            checkpoint_every_s=0.0,
        )

    return make


def test_job_is_reported_from_beginning_to_end(executor, job):
    assert executor.room() == 1
    executor.submit(job())
    assert executor.room() == 0
    events = until(executor, JobSucceeded)
    assert [type(event) for event in events] == [WorkerReady, EpochEnded, EpochEnded, JobSucceeded]
    assert "head.weight" in load(events[-1].trained.weights)
    assert until_room(executor) == []


def test_exception_fails_the_job_and_keeps_the_worker(executor, job):
    executor.submit(dataclasses.replace(job(), recipe=None))
    failed = until(executor, ENDS)[-1]
    assert isinstance(failed, JobFailed)
    assert failed.reason.startswith("AttributeError: 'NoneType' object has no attribute")
    assert "Traceback (most recent call last)" in failed.traceback
    assert "student.py" in failed.traceback
    executor.submit(job(1, depth=6))
    refused = until(executor, ENDS)[-1]
    assert refused.reason.startswith("the student's stride 64 must divide the image size, got 32×32")
    assert not refused.traceback, "the message needs no traceback"
    executor.submit(job(2))
    assert isinstance(until(executor, ENDS)[-1], JobSucceeded)


def test_stopped_job_reports_nothing_more_and_leaves_no_checkpoint(executor, job, tmp_path):
    executor.submit(job(epochs=10_000))
    until(executor, EpochEnded)
    executor.stop("0", within_s=90)
    assert until_room(executor) == []
    assert not list(tmp_path.glob("0.checkpoint*"))
    executor.submit(job(1))
    assert {event.job for event in until(executor, JobSucceeded)} == {"1"}
    executor.stop("1", within_s=90)  # too late; the next job must not suffer
    executor.submit(job(2))
    assert {event.job for event in until(executor, JobSucceeded)} == {"2"}


def test_dropped_job_resumes_from_its_checkpoint_to_the_same_student(executor, job, tmp_path):
    executor.submit(job(epochs=8))
    whole = until(executor, JobSucceeded)[-1]
    executor.submit(job(1, epochs=8))
    before = next(event for event in until(executor, EpochEnded) if isinstance(event, EpochEnded))
    executor.drop("1")
    executor.submit(job(1, epochs=8))
    events = until(executor, JobSucceeded)
    reported = [event for event in events if isinstance(event, EpochEnded)]
    assert reported[0] == dataclasses.replace(before, replayed=True), "reported again, not trained again"
    assert not reported[-1].replayed
    resumed = events[-1]
    executor.submit(job(2, epochs=8))
    again = until(executor, JobSucceeded)[-1]
    assert again.trained.weights != whole.trained.weights, "another seed"
    (tmp_path / "1.checkpoint").unlink()
    executor.submit(job(1, epochs=8))
    assert until(executor, JobSucceeded)[-1].trained.weights == resumed.trained.weights


def test_unreadable_materials_are_not_reported_as_a_job_failure(executor, job):
    broken = dataclasses.replace(job(), materials=dataclasses.replace(job().materials, key="other", data="absent"))
    try:
        executor.submit(broken)
        events = until(executor, ENDS)
    except FileNotFoundError:
        return  # Ray's driver opens them itself
    assert [type(event) for event in events] == [MaterialsFailed], "it has not started"
    assert events[0].reason.startswith("FileNotFoundError")
    executor.submit(job(1))
    assert isinstance(until(executor, ENDS)[-1], JobSucceeded)


def test_teacher_is_trained_as_a_job_like_any_other(executor, tiny, tiny_home, tmp_path):
    images, recipe = read_images(tiny, tiny_home), TeacherRecipe.of(tiny)
    wanted = LackingTeacher(recipe=recipe, materials=images, folder=teacher_folder(recipe, "here", tmp_path))
    events, _ = finish(train_teachers(make_campaign(executor, tiny, tiny_home), [wanted], threads=None))
    assert [type(event) for event in events] == [EpochEnded]
    teacher = open_teacher(recipe, wanted.folder)
    assert teacher.logits(torch.device("cpu")).shape == (len(images.splits.train), 1, 32, 32)
    assert teacher.curve == (events[0].report,)
    assert executor.room() == 1
