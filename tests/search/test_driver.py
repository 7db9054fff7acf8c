"""The driver, inline: limits, restarts, failures, and what storage and MLflow hold at the end."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest
import torch

from kdsearch.campaign.events import (
    DataReady,
    JobStarted,
    LoadingData,
    Resumed,
    SearchStarted,
    TrackingDown,
    TrackingRestored,
    TrainingTeachers,
    TrialEnded,
)
from kdsearch.campaign.preparation import read_images
from kdsearch.campaign.teachers import add_teacher
from kdsearch.config.load import load_study
from kdsearch.config.networks import UNetSpec
from kdsearch.config.search import Limits
from kdsearch.data.neighbours import summarise
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import TrainedTeacher
from kdsearch.errors import KdsearchError, SearchError, StudyFileError
from kdsearch.files.home import weights_path
from kdsearch.front.dominance import front_of
from kdsearch.models.costs import cost_of, over_limit
from kdsearch.search.run import run_study
from kdsearch.search.store import open_store
from kdsearch.tracking.location import Tracking, open_client
from kdsearch.trials.record import job_of_trial, makes_teacher, students_of
from kdsearch.trials.scores import Cost
from kdsearch.workers.jobs import EpochEnded
from kdsearch.workflow.run import sync_study
from mlflow import MlflowClient
from tests.data.pictures import write_image, write_mask
from tests.front.students import scores
from tests.search.setups import finish, inline_campaign, make_materials, trials_started
from tests.tiny import TINY

pytestmark = pytest.mark.xdist_group("driver")

INLINE = TINY.replace("workers: 1", "executor: inline")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Shared, so that data, teacher and MLflow's tables are made once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def tracking(home):
    return Tracking(uri=f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")


def _study(study_file, name, text=INLINE):
    return load_study(study_file(text.replace("name: tiny", f"name: {name}")))


def _drive(driver):
    events = []
    while True:
        try:
            events.append(next(driver))
        except StopIteration as stop:
            return events, stop.value


def _of_trial(event):
    return isinstance(event, EpochEnded) and not makes_teacher(event.job)


def test_study_runs_from_images_to_front(study_file, home, tracking):
    study = _study(study_file, "whole")
    events, records = _drive(run_study(study, home=home, tracking=tracking))
    kinds = [type(event) for event in events]
    assert kinds[0] is LoadingData
    made, searched = [TrainingTeachers, JobStarted, EpochEnded], [DataReady, SearchStarted]
    assert kinds[1:6] == [*made, *searched] or kinds[1:3] == searched
    begun = kinds.index(SearchStarted)
    assert [kinds[begun:].count(kind) for kind in (JobStarted, EpochEnded, TrialEnded)] == [3, 6, 3]
    assert [record.outcome for record in records] == ["finished"] * 3
    assert all(weights_path(home, "whole", job_of_trial(number)).is_file() for number in range(3))
    client = MlflowClient(tracking.uri)
    runs = client.search_runs([client.get_experiment_by_name("whole").experiment_id])
    kind_of = [run.data.tags["kdsearch.kind"] for run in runs]
    assert sorted(kind_of) == ["study", "teacher", "trial", "trial", "trial"]
    assert all(run.info.status == "FINISHED" for run in runs)


def test_finished_study_yields_nothing_and_keeps_its_records(study_file, home, tracking):
    study = _study(study_file, "again")
    _, first = _drive(run_study(study, home=home, tracking=tracking))
    events, second = _drive(run_study(study, home=home, tracking=tracking))
    assert events == []
    assert second == first


def test_study_that_is_broken_off_goes_on_with_what_was_running(study_file, home, tracking):
    study = _study(study_file, "broken")
    driver = run_study(study, home=home, tracking=tracking)
    ended = 0
    for event in driver:
        ended += isinstance(event, TrialEnded)
        if ended == 1 and _of_trial(event):
            break
    driver.close()
    before = open_store(study, home, create=False).records()
    assert [record.outcome for record in before] == ["finished", "running"]
    events, after = _drive(run_study(study, home=home, tracking=tracking))
    assert list(trials_started(events)) == [1, 2]
    assert [record.outcome for record in after] == ["finished"] * 3
    assert after[0] == before[0]
    assert after[1].recipe == before[1].recipe


def test_result_is_the_same_whether_broken_off_or_not(study_file, home, tracking):
    events, whole = _drive(run_study(_study(study_file, "same-a"), home=home, tracking=tracking))
    study = _study(study_file, "same-b")
    driver = run_study(study, home=home, tracking=tracking)
    next(event for event in driver if _of_trial(event))
    driver.close()
    _, broken = _drive(run_study(study, home=home, tracking=tracking))
    assert broken[0].recipe == whole[0].recipe
    assert broken[0].scores.overlap == whole[0].scores.overlap
    assert events


def test_recipes_over_a_limit_are_rejected_before_training(study_file, home, tracking):
    study = _study(
        study_file,
        "limited",
        INLINE.replace("executor: inline", "executor: inline, sampler: random, limits: {params: 1500}"),
    )
    events, records = _drive(run_study(study, home=home, tracking=tracking))
    rejected = [record for record in records if record.outcome == "rejected"]
    assert rejected
    assert all("params are over the limit of 1.5k" in record.reason for record in rejected)
    started = set(trials_started(events))
    assert not started & {record.number for record in rejected}
    assert len(started) == 3
    assert all(record.scores.params <= 1500 for record in records if record.scores)


@pytest.mark.slow
def test_limits_that_leave_nothing_are_said(study_file, home, tracking):
    text = INLINE.replace("executor: inline", "executor: inline, sampler: random, limits: {params: 10}")
    study = _study(study_file, "nothing", text)
    with pytest.raises(StudyFileError, match=r"search.limits.params: the smallest student .* has .* params"):
        _drive(run_study(study, home=home, tracking=tracking))


@pytest.mark.slow
def test_limits_that_leave_next_to_nothing_are_said(study_file, home, tracking):
    """The smallest student is within them, and random draws never hit it."""
    least = cost_of(UNetSpec(width=4, growth=1.0, depth=2, convs_per_stage=1), size=32).params
    text = INLINE.replace("{int: [2, 6]}", "{int: [4, 256]}, growth: {float: [1, 2]}")
    text = text.replace("executor: inline", f"executor: inline, sampler: random, limits: {{params: {least}}}")
    study = _study(study_file, "next-to-nothing", text)
    with pytest.raises(SearchError, match="search.limits: 500 recipes in a row were over them"):
        _drive(run_study(study, home=home, tracking=tracking))


def test_training_that_only_fails_is_recorded_and_stops_the_study(study_file, home, tracking):
    text = INLINE.replace(
        "training: {epochs: 2}", "training: {epochs: 2, optimizer: sgd, schedule: constant, learning_rate: 1e30}"
    )
    study = _study(study_file, "failing", text.replace("trials: 3", "trials: 30"))
    with pytest.raises(SearchError, match=r"trials 0, 1, 2 failed in the same way, the last because the loss became"):
        _drive(run_study(study, home=home, tracking=tracking))
    records = open_store(study, home, create=False).records()
    assert [record.outcome for record in records] == ["failed"] * 3
    assert "the loss became" in records[0].reason
    client = MlflowClient(tracking.uri)
    runs = client.search_runs(
        [client.get_experiment_by_name("failing").experiment_id], "tags.`kdsearch.kind` = 'trial'"
    )
    assert {run.info.status for run in runs} == {"FAILED"}
    assert all("the loss became" in run.data.tags["kdsearch.reason"] for run in runs)


def test_one_objective_and_a_grid(study_file, home, tracking):
    text = INLINE.replace("width: {int: [2, 6]}", "width: {choice: [2, 3]}").replace(
        "startup_trials: 2", "sampler: grid, objectives: [dice]"
    )
    events, records = _drive(
        run_study(_study(study_file, "grid", text.replace("trials: 3", "trials: 50")), home=home, tracking=tracking)
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


def test_record_that_goes_away_is_said_and_made_up_for_when_it_is_back(study_file, tmp_path):
    place = tmp_path / "record"
    tracking = Tracking(uri=f"sqlite:///{place / 'mlflow.db'}")
    driver = run_study(_study(study_file, "away"), home=tmp_path, tracking=tracking)
    kinds = []
    while True:
        try:
            event = next(driver)
        except StopIteration:
            break
        kinds.append(type(event))
        if list(trials_started([event])) == [0]:
            place.rename(tmp_path / "elsewhere")
            place.write_text("in the way")
        if kinds[-1] is TrackingDown:
            place.unlink()
            (tmp_path / "elsewhere").rename(place)
    assert kinds.index(TrackingDown) < kinds.index(TrackingRestored)
    assert _trials_recorded(tracking, "away") == ["0", "1", "2"]


def test_sync_brings_a_lost_record_level_and_again_changes_nothing(study_file, home, tmp_path):
    study = _study(study_file, "synced")
    _drive(run_study(study, home=home, tracking=Tracking(uri=f"sqlite:///{tmp_path / 'lost.db'}")))
    tracking = Tracking(uri=f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
    for _ in range(2):
        records = sync_study(study, home=home, tracking=tracking)
        assert [record.outcome for record in records] == ["finished"] * 3
        assert _trials_recorded(tracking, "synced") == ["0", "1", "2"]
    client = MlflowClient(tracking.uri)
    runs = {
        run.data.tags["kdsearch.kind"]: run
        for run in client.search_runs([client.get_experiment_by_name("synced").experiment_id])
    }
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    attached = {file.path for file in client.list_artifacts(runs["study"].info.run_id)}
    assert attached == {"study.yaml", "environment.txt", "front.html"}
    members = client.search_runs([runs["study"].info.experiment_id], "tags.`kdsearch.front` = 'true'")
    for member in members:
        assert {file.path for file in client.list_artifacts(member.info.run_id)} == {
            "model.safetensors",
            "overlays.png",
        }
    assert f"## Front: {len(members)} of 3 finished students" in runs["study"].data.tags["mlflow.note.content"]
    more = study.model_copy(update={"search": study.search.model_copy(update={"trials": 9})})
    sync_study(more, home=home, tracking=tracking)
    assert client.get_run(runs["study"].info.run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(runs["teacher"].info.run_id, "curve/dice")) == 1


def test_pictures_that_cannot_be_written_are_a_warning(study_file, home, tracking, caplog):
    study = _study(study_file, "pictureless")
    _drive(run_study(study, home=home, tracking=tracking))
    overlays = home / "studies" / "pictureless" / "overlays"
    shutil.rmtree(overlays)
    overlays.write_text("in the way")
    sync_study(study, home=home, tracking=tracking)
    assert "the pictures of trial" in caplog.text
    overlays.unlink()
    sync_study(study, home=home, tracking=tracking)
    assert list(overlays.iterdir())


def test_sync_of_a_study_that_runs_or_never_ran_is_refused(study_file, home, tracking):
    study = _study(study_file, "unsynced")
    with pytest.raises(SearchError, match="has not been run yet"):
        sync_study(study, home=home, tracking=tracking)
    driver = run_study(study, home=home, tracking=tracking)
    next(trials_started(driver))
    with pytest.raises(SearchError, match="run already, by process"):
        sync_study(study, home=home, tracking=tracking)
    with pytest.raises(SearchError, match="run already, by process"):
        next(run_study(study, home=home, tracking=tracking))
    driver.close()


def _trials_recorded(tracking, name):
    client = MlflowClient(tracking.uri)
    experiment = client.get_experiment_by_name(name).experiment_id
    runs = client.search_runs([experiment], "tags.`kdsearch.kind` = 'trial'")
    return sorted(run.data.tags["kdsearch.trial"] for run in runs)


def test_pruned_study_stops_trials_and_keeps_their_curves(study_file, home, tracking):
    text = INLINE.replace("training: {epochs: 2}", "training: {epochs: 6}").replace("trials: 3", "trials: 8")
    text = text.replace("executor: inline", "executor: inline, pruning: {pruner: halving, warmup_epochs: 0}")
    events, records = _drive(run_study(_study(study_file, "pruned", text), home=home, tracking=tracking))
    stopped = [record for record in records if record.outcome == "stopped"]
    assert stopped
    assert all(0 < len(record.curve) < 6 and "after epoch" in record.reason for record in stopped)
    assert sum(_of_trial(event) for event in events) == sum(len(record.curve) for record in records)
    client = MlflowClient(tracking.uri)
    experiment = client.get_experiment_by_name("pruned").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`kdsearch.trial` = '{stopped[0].number}'")
    assert run.info.status == "KILLED"
    assert run.data.tags["kdsearch.outcome"] == "stopped"
    assert len(client.get_metric_history(run.info.run_id, "curve/dice")) == len(stopped[0].curve)
    assert not weights_path(home, "pruned", job_of_trial(stopped[0].number)).exists()


@pytest.mark.parametrize("broken", ["a file in its folder's place", "a record of a newer MLflow"])
def test_record_that_cannot_be_used_is_refused_before_anything_is_trained(study_file, home, tracking, tmp_path, broken):
    file = tmp_path / "mlflow" / "mlflow.db"
    if broken.startswith("a file"):
        file.parent.write_text("in the way")
    else:
        open_client(tracking)
        file.parent.mkdir()
        shutil.copy(tracking.file, file)
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    seen = []
    study = _study(study_file, "unrecorded", INLINE.replace("epochs: 1", "epochs: 2"))
    with pytest.raises(KdsearchError, match=r"tracking: sqlite:///.*/mlflow/mlflow.db cannot be used"):
        seen.extend(run_study(study, home=home, tracking=Tracking(uri=f"sqlite:///{file}")))
    assert not [event for event in seen if not isinstance(event, LoadingData)]


def test_second_driver_with_other_settings_does_not_touch_a_study_that_has_no_trials_yet(study_file, home, tracking):
    study = _study(study_file, "untouched")
    driver = run_study(study, home=home, tracking=tracking)
    assert isinstance(next(driver), LoadingData)
    before = open_store(study, home, create=False).id
    other = study.model_copy(update={"seed": 5})
    with pytest.raises(SearchError, match="run already, by process"):
        next(run_study(other, home=home, tracking=tracking))
    assert open_store(study, home, create=False).id == before
    driver.close()


def test_place_for_checkpoints_that_cannot_be_used_is_named(study_file, home, tracking):
    text = INLINE.replace("executor: inline", "executor: inline, checkpoint_url: 'nowhere://bucket/place'")
    with pytest.raises(SearchError, match=r"search.checkpoint_url: nowhere://bucket/place/.* cannot be used"):
        _drive(run_study(_study(study_file, "nowhere", text), home=home, tracking=tracking))


def test_latency_as_an_objective_is_measured_recorded_and_told(study_file, home, tracking):
    study = _study(study_file, "timed", INLINE.replace("trials: 3", "trials: 3, objectives: [dice, latency_ms]"))
    records = _drive(run_study(study, home=home, tracking=tracking))[1]
    latencies = [record.scores.latency_ms for record in records]
    assert all(latency > 0 for latency in latencies)
    client = MlflowClient(tracking.uri)
    runs = client.search_runs([client.get_experiment_by_name("timed").experiment_id], "tags.`kdsearch.kind` = 'trial'")
    assert sorted(run.data.metrics["latency_ms"] for run in runs) == pytest.approx(sorted(latencies))
    members = front_of(students_of(records), study.search.objectives)
    assert min(latencies) in {member.scores.latency_ms for member in members}


def test_two_studies_of_one_teacher_train_it_once(tiny, tmp_path):
    """The second waits for the first and then finds it."""
    images = read_images(tiny, tmp_path)
    with inline_campaign(tiny, tmp_path) as campaign:
        first, second = (add_teacher(campaign, images) for _ in range(2))
        assert isinstance(next(first), TrainingTeachers)
        assert next(second).what == "another study trains this teacher"
        _, made = finish(first)
        events, found = finish(second)
    assert [type(event) for event in events] == [Resumed]
    assert found.teacher.folder == made.teacher.folder


def test_training_a_teacher_leaves_this_process_its_threads(tiny, tmp_path):
    """With several threads in each of several test processes, everything after it would crawl."""
    before = torch.get_num_threads()
    make_materials(tiny, tmp_path)
    assert torch.get_num_threads() == before


def test_front_s_page_is_recorded_again_only_if_a_trial_ended(study_file, home, tracking):
    """It is megabytes, which a remote store is sent each time."""
    text = INLINE.replace("trials: 3", "trials: 1").replace("training: {epochs: 2}", "training: {epochs: 12}")
    study = _study(study_file, "few-pages", text)
    events = run_study(study, home=home, tracking=tracking, refresh_every_s=0.0)
    written = [_changed(home / "mlflow", "front.html") for event in events if _of_trial(event)]
    assert len(written) == 12
    assert written[0] > 0
    assert len(set(written)) == 1, "written before the first epoch, and not again until a trial ended"


def _changed(folder, name):
    return max((path.stat().st_mtime_ns for path in folder.rglob(name)), default=0)


def test_changed_images_are_refused_before_a_teacher_is_trained(study_file, tmp_path, tracking):
    for index in range(30):
        write_image(tmp_path / "data" / "images" / f"{index}.png", seed=index)
        write_mask(tmp_path / "data" / "masks" / f"{index}.png")
    sources = f"sources: [{{reader: folder, folder: {tmp_path / 'data'}}}]"
    study = _study(study_file, "changed", INLINE.replace("sources: [{reader: phantom, images: 40}]", sources))
    images = read_images(study, tmp_path)
    store = open_store(study, tmp_path, create=True)
    made = TrainedTeacher(
        folder=Path("t"), recipe=TeacherRecipe.of(study), scores=scores(dice=0.9, params=5, macs=6), curve=()
    )
    store.bind(data=summarise(images.dataset, images.splits), teacher=made)
    store.ask()
    write_image(tmp_path / "data" / "images" / "30.png", seed=30)
    write_mask(tmp_path / "data" / "masks" / "30.png")
    driver = run_study(study, home=tmp_path, tracking=tracking)
    assert isinstance(next(driver), LoadingData)
    with pytest.raises(SearchError, match="the images or their split are not those its trials were made from"):
        next(driver)
