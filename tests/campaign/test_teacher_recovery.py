"""Teachers are jobs: trained by workers, several at once, resumed, and kept whole or not at all."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch

from kdsearch.campaign.driver import train_all
from kdsearch.campaign.events import JobStarted, TrainingTeachers
from kdsearch.campaign.preparation import read_images
from kdsearch.campaign.teachers import LackingTeacher, Teachers, add_teacher
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import open_teacher, teacher_folder
from kdsearch.errors import TeacherError
from kdsearch.measure.latency import cores
from kdsearch.trials.record import job_of_teacher
from kdsearch.workers.dispatcher import Requeued
from kdsearch.workers.jobs import EpochEnded, JobFailed
from kdsearch.workers.processes import ProcessExecutor
from tests.search.setups import ONE_THREAD, finish, inline_campaign, make_campaign, train_teachers


@pytest.fixture
def wanted(tiny, tiny_home, tmp_path):
    images = read_images(tiny, tiny_home)

    def make(*, seed=0, epochs=3, home="home", **training) -> LackingTeacher:
        spec = tiny.teacher.training.model_copy(update={"epochs": epochs, **training})
        config = tiny.teacher.model_copy(update={"training": spec})
        recipe = TeacherRecipe(config=config, task=tiny.data.task, seed=seed)
        folder = teacher_folder(recipe, images.splits.fingerprint, tmp_path / home)
        return LackingTeacher(recipe=recipe, materials=images, folder=folder)

    return make


def _weights(wanted):
    return (wanted.folder / "teacher.safetensors").read_bytes()


def _with(recipe, **settings):
    return dataclasses.replace(recipe, config=recipe.config.model_copy(update=settings))


@pytest.mark.slow
def test_teachers_trained_in_parallel_equal_teachers_trained_one_by_one(tiny, wanted, tiny_home):
    together = [wanted(seed=seed) for seed in (0, 1)]
    executor = ProcessExecutor(ONE_THREAD, workers=2)
    try:
        events, _ = finish(train_teachers(make_campaign(executor, tiny, tiny_home), together))
    finally:
        executor.close()
    assert len({event.job for event in events}) == 2
    alone = wanted(seed=1, home="alone")
    with inline_campaign(tiny, tiny_home) as campaign:
        finish(train_teachers(campaign, [alone]))
    assert _weights(alone) == _weights(together[1]) != _weights(together[0])
    teacher = open_teacher(alone.recipe, alone.folder)
    assert len(teacher.curve) == 3
    assert not list(alone.folder.parent.glob(".*.checkpoint")), "it is not needed any more"


def test_interrupted_teacher_resumes_to_identical_weights(tiny, wanted, tiny_home):
    whole, broken = wanted(home="whole"), wanted(home="broken")
    with inline_campaign(tiny, tiny_home) as campaign:
        finish(train_teachers(campaign, [whole]))
    with inline_campaign(tiny, tiny_home) as campaign:
        training = train_teachers(campaign, [broken], every_s=0.0)
        first, second = next(training), next(training)
        training.close()
    assert not broken.folder.exists()
    with inline_campaign(tiny, tiny_home) as campaign:
        events, _ = finish(train_teachers(campaign, [broken], every_s=0.0))
    again = [dataclasses.replace(event, replayed=True) for event in (first, second)]
    assert events[:2] == again, "reported again with the seconds they took, not trained again"
    assert _weights(broken) == _weights(whole)


@pytest.mark.slow
def test_worker_that_dies_costs_a_retry(tiny, wanted, tiny_home):
    one, others = wanted(epochs=8), set(multiprocessing.active_children())
    executor = ProcessExecutor(ONE_THREAD, workers=1)
    try:
        events = []
        for event in train_teachers(make_campaign(executor, tiny, tiny_home), [one]):
            if isinstance(event, EpochEnded) and not events:
                (worker,) = set(multiprocessing.active_children()) - others
                os.kill(worker.pid, signal.SIGKILL)
            events.append(event)
    finally:
        executor.close()
    (requeued,) = (event for event in events if isinstance(event, Requeued))
    assert (requeued.reason, requeued.attempt) == ("the worker process ended with signal 9", 1)
    assert len(open_teacher(one.recipe, one.folder).curve) == 8


def test_error_of_an_untrainable_teacher_gives_a_remedy(tiny, wanted, tiny_home):
    broken = wanted(learning_rate=1e30, optimizer="sgd", schedule="constant")
    with (
        inline_campaign(tiny, tiny_home) as campaign,
        pytest.raises(TeacherError, match=r"not be trained: the loss became .*; lower teacher\.train"),
    ):
        finish(train_teachers(campaign, [broken], every_s=0.0))
    assert not broken.folder.exists()


def test_bug_is_logged_with_its_traceback(tiny, wanted, tiny_home, caplog):
    broken = dataclasses.replace(wanted(), recipe=_with(wanted().recipe, training=None))
    with (
        inline_campaign(tiny, tiny_home) as campaign,
        caplog.at_level(logging.ERROR),
        pytest.raises(TeacherError, match="AttributeError: "),
    ):
        finish(train_teachers(campaign, [broken], every_s=0.0))
    assert "Traceback" in caplog.text


def test_study_s_cores_are_the_teacher_s_and_a_deterministic_one_has_a_single_thread(tiny, tmp_path, tiny_home):
    shutil.copytree(tiny_home / "data", tmp_path / "data")
    images, folder = read_images(tiny, tmp_path), str(tmp_path / "elsewhere")
    for deterministic, threads in ((False, "all"), (True, 1)):
        changes = {"deterministic": deterministic, "checkpoint_url": folder}
        study = tiny.model_copy(update={"search": tiny.search.model_copy(update=changes)})
        with inline_campaign(study, tmp_path, study_id="0123456789") as campaign:
            training = add_teacher(campaign, images)
            told = next(training)
            assert [type(next(training)) for _ in range(2)] == [JobStarted, EpochEnded]
            (job,) = campaign.jobs.running
            assert told == TrainingTeachers(jobs=(job.id,))
            assert job.threads == threads
            assert torch.get_num_threads() == (cores() if threads == "all" else 1)
            assert job.checkpoint.startswith(f"{folder}/tiny-01234567/teacher-")
            training.close()


def test_weights_file_gets_an_absolute_path_for_workers(tiny, wanted, tmp_path, monkeypatch, tiny_home):
    monkeypatch.chdir(tmp_path)
    one = dataclasses.replace(wanted(), recipe=_with(wanted().recipe, weights="file:encoder.safetensors"))
    with (
        inline_campaign(tiny, tiny_home) as campaign,
        pytest.raises(TeacherError, match="could not be trained: .*encoder.safetensors"),
    ):
        for _ in train_teachers(campaign, [one]):
            pass
    with inline_campaign(tiny, tiny_home) as campaign:
        _, job = finish(Teachers(campaign, [one], threads=1).next_job())
    assert job.recipe.config.weights == f"file:{tmp_path / 'encoder.safetensors'}"


def test_teacher_that_is_a_file_needs_no_worker(tiny, wanted, tmp_path, tiny_home):
    trained = wanted()
    with inline_campaign(tiny, tiny_home) as campaign:
        finish(train_teachers(campaign, [trained]))
    teacher = trained.recipe.config.model_copy(update={"checkpoint": str(trained.folder / "teacher.safetensors")})
    study = tiny.model_copy(update={"teacher": teacher})
    shutil.copytree(tiny_home / "data", tmp_path / "data")
    events, made = finish(add_teacher(make_campaign(None, study, tmp_path), read_images(study, tmp_path)))
    assert events == []
    assert made.teacher.scores.overlap == open_teacher(trained.recipe, trained.folder).scores.overlap


def test_reason_tells_when_it_failed(tiny, wanted, tiny_home):
    with inline_campaign(tiny, tiny_home) as campaign:
        teachers = Teachers(campaign, [wanted()], threads=1)
        training = train_all(campaign, teachers)
        [next(training) for _ in range(3)]  # the second epoch is told when the first has been taken into account
        failed = campaign.jobs.handle(JobFailed(job=campaign.jobs.running[0].id, reason="the disk is gone"), teachers)
        with pytest.raises(TeacherError, match="the teacher could not be trained after 1 epoch: the disk is gone"):
            next(failed)


def test_failure_names_the_teacher_among_several(tiny, wanted, tiny_home):
    both = [dataclasses.replace(wanted(), folder=wanted().folder.with_name(name)) for name in ("9f", "1a")]
    job = SimpleNamespace(id=job_of_teacher("1a"))
    with pytest.raises(TeacherError, match="the teacher 2 of 2 could not be trained: the disk is gone"):
        Teachers(make_campaign(None, tiny, tiny_home), both, threads=1).failed(job, "the disk is gone", ())
