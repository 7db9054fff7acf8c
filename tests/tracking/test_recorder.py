"""Recording in a real MLflow store."""

from __future__ import annotations

import json
import shutil

import pytest
from mlflow.artifacts import load_text
from mlflow.exceptions import MlflowException

from kdsearch.config.study import StudyConfig
from kdsearch.data.dataset import DataSummary
from kdsearch.errors import KdsearchError
from kdsearch.tracking.client import find_views
from kdsearch.tracking.location import Tracking, choose_tracking, view_page
from kdsearch.tracking.recorder import Recorder
from kdsearch.tracking.views import TAG, unpack
from kdsearch.trials.record import job_of_teacher, job_of_trial
from mlflow import MlflowClient
from tests.front.students import scores
from tests.tracking.records import NOW, curve, ended


@pytest.fixture(scope="module")
def tracking(empty_record, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "deep"
    folder.mkdir()
    return Tracking(uri=f"sqlite:///{shutil.copyfile(empty_record, folder / 'mlflow.db')}")


def _recorder(name, tracking, study_id="one"):
    return Recorder(StudyConfig(name=name), tracking, study_id=study_id)


DATA = DataSummary(fingerprint="abc123", split="split", sources=("s",), images=4, train=2, validation=1, test=1)


def _runs(tracking, name):
    client = MlflowClient(tracking.uri)
    return {
        run.data.tags.get("kdsearch.trial", run.data.tags["kdsearch.kind"]): run
        for run in client.search_runs([client.get_experiment_by_name(name).experiment_id])
    }


def test_trial_is_recorded_completely(tracking):
    recorder = _recorder("whole", tracking)
    recorder.describe_data(DATA)
    recorder.trial(ended(0, epochs=300))
    recorder.close(finished=True)
    runs = _runs(tracking, "whole")
    trial, study = runs["0"], runs["study"]
    assert trial.data.params["distillation.path"] == "logits"
    assert trial.data.params["student.width"] == "16"
    assert {trial.data.metrics[name] for name in ("dice", "params", "macs", "flops")} == {0.7, 10, 20, 40}
    assert len(MlflowClient(tracking.uri).get_metric_history(trial.info.run_id, "curve/dice")) == 300
    assert trial.data.tags["mlflow.parentRunId"] == study.info.run_id
    assert trial.info.start_time == trial.info.end_time == int(NOW.timestamp() * 1000)
    assert trial.inputs.dataset_inputs[0].dataset.digest == "abc123"
    assert study.data.tags["version.torch"]
    assert trial.data.tags["count.fvcore"] == "fvcore 1: multiply-adds, input 1×1×32×32"
    assert "name: whole" in load_text(f"{study.info.artifact_uri}/study.yaml")


def test_writing_twice_changes_nothing(tracking):
    for _ in range(2):
        recorder = _recorder("twice", tracking)
        for number in range(2):
            recorder.trial(ended(number))
            recorder.trial(ended(number))
        recorder.close(finished=True)
    runs = _runs(tracking, "twice")
    assert sorted(runs) == ["0", "1", "study"]
    assert len(MlflowClient(tracking.uri).get_metric_history(runs["0"].info.run_id, "curve/dice")) == 3


def test_interrupted_run_is_completed_without_duplicates(tracking):
    client = MlflowClient(tracking.uri)
    first = _recorder("half", tracking)
    first.trial(ended(0))
    run = _runs(tracking, "half")["0"]
    client.update_run(run.info.run_id, status="RUNNING")
    _recorder("half", tracking).trial(ended(0))
    again = _runs(tracking, "half")["0"]
    assert again.info.run_id == run.info.run_id
    assert again.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "curve/dice")) == 3


def test_runs_without_job_tags_are_found(tracking):
    client = MlflowClient(tracking.uri)
    made = scores(dice=0.8, params=10, macs=20)
    first = _recorder("untagged", tracking)
    first.teacher(job_of_teacher("a"), made, curve(2))
    first.trial(ended(3))
    before = _runs(tracking, "untagged")
    assert before["3"].data.tags["kdsearch.job"] == job_of_trial(3)
    for run in before.values():
        if "kdsearch.job" in run.data.tags:
            client.delete_tag(run.info.run_id, "kdsearch.job")
    again = _recorder("untagged", tracking)
    again.teacher(job_of_teacher("a"), made, curve(2))
    again.trial(ended(3))
    again.front([job_of_trial(3)])
    after = _runs(tracking, "untagged")
    assert {name: run.info.run_id for name, run in after.items()} == {n: run.info.run_id for n, run in before.items()}
    experiment = client.get_experiment_by_name("untagged").experiment_id
    assert len(client.search_runs([experiment])) == 3, "no run is duplicated"


def test_another_study_of_the_same_name_keeps_its_runs(tracking):
    for study_id in ("one", "two"):
        recorder = _recorder("namesake", tracking, study_id)
        recorder.trial(ended(0))
        recorder.front([job_of_trial(0)])
    client = MlflowClient(tracking.uri)
    runs = client.search_runs([client.get_experiment_by_name("namesake").experiment_id], "tags.`kdsearch.trial` = '0'")
    assert {run.data.tags["kdsearch.study"] for run in runs} == {"one", "two"}


def test_studies_of_the_same_name_get_separate_views_and_the_latest_is_shown(tracking):
    for study_id in ("one", "two", "one"):
        recorder = _recorder("namesakes", tracking, study_id)
    tags = MlflowClient(tracking.uri).get_experiment_by_name("namesakes").tags
    names = {key: json.loads(value)["name"] for key, value in tags.items() if key.startswith(f"{TAG}kdsearch-front-")}
    assert names.keys() == {f"{TAG}kdsearch-front-one", f"{TAG}kdsearch-front-two"}
    assert all(name.startswith("Pareto front (20") for name in names.values())
    assert "viewStateShareKey=kdsearch-front-one&" in recorder.page
    assert find_views(tracking, "namesakes")["front"] == recorder.page.replace("-one&", "-two&")


def test_store_outage_is_noted_and_missed_runs_are_written_afterwards(empty_record, tmp_path):
    (tmp_path / "away").mkdir()
    tracking = Tracking(uri=f"sqlite:///{shutil.copyfile(empty_record, tmp_path / 'away' / 'mlflow.db')}")
    recorder = _recorder("away", tracking)
    recorder.trial(ended(0))
    assert recorder.away == ""
    database = tmp_path / "away" / "mlflow.db"
    database.rename(tmp_path / "elsewhere.db")
    database.mkdir()
    recorder.trial(ended(1))
    recorder.trial(ended(2))
    recorder.front([job_of_trial(1)])
    assert recorder.away
    database.rmdir()
    (tmp_path / "elsewhere.db").rename(database)
    recorder.trial(ended(3))
    recorder.catch_up(at_once=True)
    assert recorder.away == ""
    assert {"0", "1", "2", "3"} <= set(_runs(tracking, "away"))


def test_running_trial_is_not_recorded_and_outcomes_set_the_run_status(tracking):
    recorder = _recorder("outcomes", tracking)
    for number, outcome in enumerate(("finished", "failed", "rejected", "running", "stopped")):
        recorder.trial(ended(number, outcome=outcome))
    recorder.close(finished=False)
    runs = _runs(tracking, "outcomes")
    assert {key: run.info.status for key, run in runs.items()} == {
        "0": "FINISHED",
        "1": "FAILED",
        "2": "KILLED",
        "4": "KILLED",
        "study": "KILLED",
    }
    assert runs["1"].data.tags["kdsearch.reason"] == "why"


def test_front_tags_follow_the_front(tracking):
    recorder = _recorder("front", tracking)
    for number in range(3):
        recorder.trial(ended(number))
    recorder.front([job_of_trial(0), job_of_trial(1)])
    recorder.front([job_of_trial(1), job_of_trial(2)])
    again = _recorder("front", tracking)
    again.front([job_of_trial(1), job_of_trial(2)])
    marked = {key for key, run in _runs(tracking, "front").items() if run.data.tags.get("kdsearch.front") == "true"}
    assert marked == {"1", "2"}


def test_chart_is_replaced(tracking):
    recorder = _recorder("chart", tracking)
    recorder.chart("<p>old</p>")
    recorder.chart("<p>new</p>")
    assert load_text(f"{_runs(tracking, 'chart')['study'].info.artifact_uri}/front.html") == "<p>new</p>"


def test_artifacts_are_next_to_the_database(tracking):
    _recorder("beside", tracking)
    uri = _runs(tracking, "beside")["study"].info.artifact_uri
    assert uri.startswith(Tracking(uri=tracking.uri).artifact_location())
    assert tracking.artifact_location().endswith("/deep/artifacts")


def test_store_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(KdsearchError, match=r"tracking: sqlite:///.*mlflow.db cannot be used"):
        _recorder("a", Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}"))


def test_study_file_then_environment_then_default():
    environment = {"MLFLOW_TRACKING_URI": "http://b"}
    assert choose_tracking("http://a", environment).uri == "http://a"
    assert choose_tracking(None, environment).uri == "http://b"
    assert choose_tracking(None, {}).uri == "sqlite:///mlflow/mlflow.db"


def test_link_opens_the_front_at_a_local_or_remote_server():
    embedded, server = choose_tracking(None, {}), Tracking(uri="http://host:8080/")
    page = "/#/experiments/3/runs?viewStateShareKey=kdsearch-front-01234567&compareRunsMode=CHART"
    assert view_page("front", "3", "0123456789ab") == page
    assert embedded.link(page) == f"http://127.0.0.1:5000{page}"
    assert server.artifact_location() is None
    assert server.link(page) == f"http://host:8080{page}"


def test_members_get_weights_and_overlays_once(tracking):
    recorder = _recorder("members", tracking)
    recorder.trial(ended(0))
    assert recorder.lacks_pictures(job_of_trial(0))
    assert not recorder.lacks_pictures(job_of_trial(1))
    recorder.member(job_of_trial(0), weights=b"weights", overlays=b"png")
    assert not recorder.lacks_pictures(job_of_trial(0))
    assert not _recorder("members", tracking).lacks_pictures(job_of_trial(0))
    run = _runs(tracking, "members")["0"]
    names = {file.path for file in MlflowClient(tracking.uri).list_artifacts(run.info.run_id)}
    assert names == {"model.safetensors", "overlays.png"}


def test_note_and_environment_are_on_the_study_run(tracking):
    recorder = _recorder("noted", tracking)
    recorder.note("# noted")
    run = _runs(tracking, "noted")["study"]
    assert run.data.tags["mlflow.note.content"] == "# noted"
    assert "torch==" in load_text(f"{run.info.artifact_uri}/environment.txt")


def test_own_views_are_updated_and_a_user_s_view_is_kept(tracking):
    _recorder("viewed", tracking)
    client = MlflowClient(tracking.uri)
    number = client.get_experiment_by_name("viewed").experiment_id
    client.set_experiment_tag(number, f"{TAG}mine", "kept")
    client.set_experiment_tag(number, f"{TAG}kdsearch-front-one", "spoilt")
    _recorder("viewed", tracking)
    tags = client.get_experiment(number).tags
    assert tags[f"{TAG}mine"] == "kept"
    assert json.loads(tags[f"{TAG}kdsearch-front-one"])["name"] == "Pareto front"
    assert {key for key in tags if key.startswith(TAG)} == {
        f"{TAG}{name}" for name in ("mine", "kdsearch-front-one", "kdsearch-curves-one", "kdsearch-paths-one")
    }


def test_front_is_loaded_first_among_many_trials(tracking):
    recorder = _recorder("many", tracking)
    for number in range(110):
        recorder.trial(ended(number, epochs=1))
    recorder.front(job_of_trial(number) for number in range(60))
    recorder.front([job_of_trial(1), job_of_trial(55), job_of_trial(109)])  # others were on it before
    client = MlflowClient(tracking.uri)
    experiment = client.get_experiment_by_name("many")
    state = unpack(experiment.tags[f"{TAG}kdsearch-front-one"])
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    loaded = client.search_runs([experiment.experiment_id], state["searchFilter"], max_results=100, order_by=[order])
    assert {run.data.tags["kdsearch.trial"] for run in loaded[:3]} == {"1", "55", "109"}


@pytest.mark.usefixtures("bucket")
def test_bucket_that_refuses_artifacts_is_named(tracking):
    MlflowClient(tracking.uri).create_experiment("refused", artifact_location="s3://no-such-bucket/place")
    with pytest.raises(KdsearchError, match="cannot be used: .*NoSuchBucket"):
        _recorder("refused", tracking)


def test_failing_store_is_tried_once_and_retried_later(record):
    recorder = _recorder("refuses", Tracking(uri=record))
    asked = []

    def refuse(name):
        asked.append(name)
        raise KdsearchError("no")

    for name in "abc":
        recorder.write(name, lambda name=name: refuse(name))
    assert asked == ["a"]
    recorder.catch_up(at_once=True)
    assert recorder.away == "no"
    assert len(asked) == 2
    recorder.write("a", lambda: asked.append("again"))
    recorder.write("b", lambda: None)
    recorder.write("c", lambda: None)
    recorder.catch_up(at_once=True)
    assert (asked[-1], recorder.away) == ("again", "")


def test_permanently_failing_write_does_not_block_others(record):
    recorder = _recorder("one", Tracking(uri=record))
    written = []

    def refuse():
        raise MlflowException("never")

    recorder.write("a", refuse)
    recorder.write("b", lambda: written.append("b"))
    recorder.write("c", lambda: written.append("c"))
    recorder.catch_up(at_once=True)
    recorder.catch_up(at_once=True)
    assert written == ["b", "c"]
    assert recorder.pending == ("a",)


def test_link_falls_back_to_the_experiment_if_views_were_removed(tracking):
    _recorder("viewless", tracking).close(finished=True)
    client = MlflowClient(tracking.uri)
    experiment = client.get_experiment_by_name("viewless")
    assert set(find_views(tracking, "viewless")) == {"front", "curves", "paths"}
    for tag in experiment.tags:
        if tag.startswith(TAG):
            client.delete_experiment_tag(experiment.experiment_id, tag)
    assert find_views(tracking, "viewless") == {"experiment": f"/#/experiments/{experiment.experiment_id}"}
