"""The driver, inline: limits, restarts, failures, and the final contents of the Optuna database and MLflow."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from kdsearch.campaign.events import (
    DataReady,
    Estimated,
    JobStarted,
    LoadingData,
    Resumed,
    SearchStarted,
    TrainingTeachers,
    TrialEnded,
)
from kdsearch.campaign.preparation import read_images
from kdsearch.campaign.teachers import add_teacher
from kdsearch.config.networks import UNetSpec
from kdsearch.config.search import Limits
from kdsearch.config.task import square
from kdsearch.data.neighbors import summarize
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import TrainedTeacher
from kdsearch.errors import SearchError, StudyFileError
from kdsearch.files.home import weights_path
from kdsearch.front.dominance import front_of
from kdsearch.models.costs import cost_of, over_limit
from kdsearch.search.run import run_study
from kdsearch.search.store import open_store
from kdsearch.trials.record import job_of_trial, students_of
from kdsearch.trials.scores import Cost
from kdsearch.workers.jobs import EpochEnded
from mlflow import MlflowClient
from tests.data.pictures import write_image, write_mask
from tests.front.students import scores
from tests.search.runs import named, of_trial
from tests.search.setups import finish, inline_campaign, make_materials, trials_started
from tests.tiny import INLINE


def test_study_runs_from_images_to_front(study_file, tiny_home, tracking, tmp_path):
    study, home = named(study_file, "whole"), tmp_path
    shutil.copytree(tiny_home / "data", home / "data")
    events, records = finish(run_study(study, home=home, tracking=tracking))
    kinds = [type(event) for event in events]
    assert kinds[:7] == [LoadingData, Estimated, TrainingTeachers, JobStarted, EpochEnded, DataReady, SearchStarted]
    begun = kinds.index(SearchStarted)
    assert [kinds[begun:].count(kind) for kind in (JobStarted, EpochEnded, TrialEnded)] == [3, 6, 3]
    assert [record.outcome for record in records] == ["finished"] * 3
    assert all(weights_path(home, "whole", job_of_trial(number)).is_file() for number in range(3))
    client = MlflowClient(tracking.uri)
    runs = client.search_runs([client.get_experiment_by_name("whole").experiment_id])
    kind_of = [run.data.tags["kdsearch.kind"] for run in runs]
    assert sorted(kind_of) == ["study", "teacher", "trial", "trial", "trial"]
    assert all(run.info.status == "FINISHED" for run in runs)


def test_finished_study_yields_nothing_and_keeps_its_records(finished, home, tracking):
    before = open_store(finished, home, create=False).records()
    events, after = finish(run_study(finished, home=home, tracking=tracking))
    assert events == []
    assert after == before


def test_twice_interrupted_study_resumes_running_trials_to_the_same_result(study_file, finished, home, tracking):
    study = named(study_file, "broken")
    driver = run_study(study, home=home, tracking=tracking)
    next(event for event in driver if of_trial(event))
    driver.close()
    driver, ended = run_study(study, home=home, tracking=tracking), 0
    for event in driver:
        ended += isinstance(event, TrialEnded)
        if ended == 1 and of_trial(event):
            break
    driver.close()
    before = open_store(study, home, create=False).records()
    assert [record.outcome for record in before] == ["finished", "running"]
    events, after = finish(run_study(study, home=home, tracking=tracking))
    assert list(trials_started(events)) == [1, 2]
    assert [record.outcome for record in after] == ["finished"] * 3
    assert after[0] == before[0]
    assert after[1].recipe == before[1].recipe
    whole = open_store(finished, home, create=False).records()
    assert after[0].recipe == whole[0].recipe
    assert after[0].scores.overlap == whole[0].scores.overlap


def test_recipes_over_a_limit_are_rejected_before_training(study_file, home, tracking):
    study = named(
        study_file,
        "limited",
        INLINE.replace("executor: inline", "executor: inline, sampler: random, limits: {params: 1500}"),
    )
    events, records = finish(run_study(study, home=home, tracking=tracking))
    rejected = [record for record in records if record.outcome == "rejected"]
    assert rejected
    assert all("params are over the limit of 1.5k" in record.reason for record in rejected)
    started = set(trials_started(events))
    assert not started & {record.number for record in rejected}
    assert len(started) == 3
    assert all(record.scores.params <= 1500 for record in records if record.scores)


@pytest.mark.slow
def test_limits_below_the_smallest_student_are_refused(study_file, home, tracking):
    text = INLINE.replace("executor: inline", "executor: inline, sampler: random, limits: {params: 10}")
    study = named(study_file, "nothing", text)
    with pytest.raises(StudyFileError, match=r"search.limits.params: the smallest student .* has .* params"):
        finish(run_study(study, home=home, tracking=tracking))


@pytest.mark.slow
def test_limits_that_random_recipes_never_meet_are_reported(study_file, home, tracking):
    """Only the smallest student is within the limits, and random draws never find it."""
    least = cost_of(UNetSpec(width=4, growth=1.0, depth=2, convs_per_stage=1), square(32)).params
    text = INLINE.replace("{int: [2, 6]}", "{int: [4, 256]}, growth: {float: [1, 2]}")
    text = text.replace("executor: inline", f"executor: inline, sampler: random, limits: {{params: {least}}}")
    study = named(study_file, "next-to-nothing", text)
    with pytest.raises(SearchError, match="search.limits: 500 recipes in a row exceeded them"):
        finish(run_study(study, home=home, tracking=tracking))


def test_training_that_always_fails_is_recorded_and_stops_the_study(study_file, home, tracking):
    text = INLINE.replace(
        "training: {epochs: 2}", "training: {epochs: 2, optimizer: sgd, schedule: constant, learning_rate: 1e30}"
    )
    study = named(study_file, "failing", text.replace("trials: 3", "trials: 30"))
    with pytest.raises(SearchError, match=r"trials 0, 1, 2 failed in the same way; last reason: the loss became"):
        finish(run_study(study, home=home, tracking=tracking))
    records = open_store(study, home, create=False).records()
    assert [record.outcome for record in records] == ["failed"] * 3
    assert "the loss became" in records[0].reason
    client = MlflowClient(tracking.uri)
    runs = client.search_runs(
        [client.get_experiment_by_name("failing").experiment_id], "tags.`kdsearch.kind` = 'trial'"
    )
    assert {run.info.status for run in runs} == {"FAILED"}
    assert all("the loss became" in run.data.tags["kdsearch.reason"] for run in runs)


def test_grid_with_one_objective_tries_every_recipe_once(study_file, home, tracking):
    text = INLINE.replace("width: {int: [2, 6]}", "width: {choice: [2, 3]}").replace(
        "startup_trials: 2", "sampler: grid, objectives: [dice]"
    )
    events, records = finish(
        run_study(named(study_file, "grid", text.replace("trials: 3", "trials: 50")), home=home, tracking=tracking)
    )
    assert len(records) == 4
    assert len({(record.recipe.student.width, record.recipe.path) for record in records}) == 4
    assert len(list(trials_started(events))) == 4


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({}, ""),
        ({"params": 100, "macs": 2_000}, ""),
        ({"params": 99}, "100 params are over the limit of 99"),
        ({"macs": 1_999}, "2k macs are over the limit of 2k"),
    ],
)
def test_limit_is_inclusive(limits, reason):
    assert over_limit(Cost(params=100, macs=2_000), Limits(**limits)) == reason


@pytest.mark.slow
def test_pruned_study_stops_trials_and_keeps_their_curves(study_file, home, tracking):
    text = INLINE.replace("training: {epochs: 2}", "training: {epochs: 6}").replace("trials: 3", "trials: 8")
    text = text.replace("executor: inline", "executor: inline, pruning: {pruner: halving, warmup_epochs: 0}")
    events, records = finish(run_study(named(study_file, "pruned", text), home=home, tracking=tracking))
    stopped = [record for record in records if record.outcome == "stopped"]
    assert stopped
    assert all(0 < len(record.curve) < 6 and "after epoch" in record.reason for record in stopped)
    assert sum(of_trial(event) for event in events) == sum(len(record.curve) for record in records)
    client = MlflowClient(tracking.uri)
    experiment = client.get_experiment_by_name("pruned").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`kdsearch.trial` = '{stopped[0].number}'")
    assert run.info.status == "KILLED"
    assert run.data.tags["kdsearch.outcome"] == "stopped"
    assert len(client.get_metric_history(run.info.run_id, "curve/dice")) == len(stopped[0].curve)
    assert not weights_path(home, "pruned", job_of_trial(stopped[0].number)).exists()


def test_second_driver_with_other_settings_does_not_touch_an_empty_study(study_file, home, tracking):
    study = named(study_file, "untouched")
    driver = run_study(study, home=home, tracking=tracking)
    assert isinstance(next(driver), LoadingData)
    before = open_store(study, home, create=False).id
    other = study.model_copy(update={"seed": 5})
    with pytest.raises(SearchError, match="run already, by process"):
        next(run_study(other, home=home, tracking=tracking))
    assert open_store(study, home, create=False).id == before
    driver.close()


def test_unusable_checkpoint_url_is_named(study_file, home, tracking):
    text = INLINE.replace("executor: inline", "executor: inline, checkpoint_url: 'nowhere://bucket/place'")
    with pytest.raises(SearchError, match=r"search.checkpoint_url: nowhere://bucket/place/.* cannot be used"):
        finish(run_study(named(study_file, "nowhere", text), home=home, tracking=tracking))


@pytest.mark.slow
def test_latency_objective_is_measured_recorded_and_used(study_file, home, tracking):
    study = named(study_file, "timed", INLINE.replace("trials: 3", "trials: 2, objectives: [dice, latency_ms]"))
    records = finish(run_study(study, home=home, tracking=tracking))[1]
    latencies = [record.scores.latency_ms for record in records]
    assert all(latency > 0 for latency in latencies)
    client = MlflowClient(tracking.uri)
    runs = client.search_runs([client.get_experiment_by_name("timed").experiment_id], "tags.`kdsearch.kind` = 'trial'")
    assert sorted(run.data.metrics["latency_ms"] for run in runs) == pytest.approx(sorted(latencies))
    members = front_of(students_of(records), study.search.objectives)
    assert min(latencies) in {member.scores.latency_ms for member in members}


def test_two_studies_with_the_same_teacher_train_it_once(tiny, tiny_home, tmp_path):
    """The second study waits for the first and then finds its teacher."""
    shutil.copytree(tiny_home / "data", tmp_path / "data")
    images = read_images(tiny, tmp_path)
    with inline_campaign(tiny, tmp_path) as campaign:
        first, second = (add_teacher(campaign, images) for _ in range(2))
        assert isinstance(next(first), TrainingTeachers)
        assert next(second).what == "another study is training this teacher"
        _, made = finish(first)
        events, found = finish(second)
    assert [type(event) for event in events] == [Resumed]
    assert found.teacher.folder == made.teacher.folder


def test_training_a_teacher_keeps_this_process_s_thread_count(tiny, tiny_home, tmp_path):
    """With several threads in each of several test processes, all later tests would be slow."""
    shutil.copytree(tiny_home / "data", tmp_path / "data")
    before = torch.get_num_threads()
    make_materials(tiny, tmp_path)
    assert torch.get_num_threads() == before


def test_changed_images_are_refused_before_a_teacher_is_trained(study_file, tmp_path, tracking):
    for index in range(30):
        write_image(tmp_path / "data" / "images" / f"{index}.png", seed=index)
        write_mask(tmp_path / "data" / "masks" / f"{index}.png")
    sources = f"sources: [{{reader: folder, folder: {tmp_path / 'data'}}}]"
    study = named(study_file, "changed", INLINE.replace("sources: [{reader: phantom, images: 40}]", sources))
    images = read_images(study, tmp_path)
    store = open_store(study, tmp_path, create=True)
    made = TrainedTeacher(
        folder=Path("t"), recipe=TeacherRecipe.of(study), scores=scores(dice=0.9, params=5, macs=6), curve=()
    )
    store.bind(data=summarize(images.dataset, images.splits), teacher=made)
    store.ask()
    write_image(tmp_path / "data" / "images" / "30.png", seed=30)
    write_mask(tmp_path / "data" / "masks" / "30.png")
    driver = run_study(study, home=tmp_path, tracking=tracking)
    assert isinstance(next(driver), LoadingData)
    with pytest.raises(SearchError, match="the images or their split have changed since its trials were trained"):
        next(driver)
