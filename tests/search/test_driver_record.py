"""What a driver does if MLflow is unreachable, cannot be used or lacks some of a study's trials."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3

import pytest

from kdsearch.campaign.events import (
    Estimated,
    LoadingData,
    TrackingDown,
    TrackingRestored,
)
from kdsearch.errors import KdsearchError, SearchError
from kdsearch.search.run import run_study
from kdsearch.tracking.location import Tracking, open_client
from kdsearch.workflow.run import sync_study
from mlflow import MlflowClient
from tests.search.runs import named, of_trial
from tests.search.setups import trials_started
from tests.tiny import INLINE


def test_mlflow_outage_is_reported_and_missing_runs_are_uploaded_afterwards(study_file, home, empty_record, tmp_path):
    place = tmp_path / "record"
    place.mkdir()
    shutil.copyfile(empty_record, place / "mlflow.db")
    tracking = Tracking(uri=f"sqlite:///{place / 'mlflow.db'}")
    driver = run_study(named(study_file, "away"), home=home, tracking=tracking)
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


def test_sync_restores_lost_mlflow_runs_and_a_second_sync_changes_nothing(finished, home, record):
    tracking = Tracking(uri=record)
    for _ in range(2):
        records = sync_study(finished, home=home, tracking=tracking)
        assert [record.outcome for record in records] == ["finished"] * 3
        assert _trials_recorded(tracking, "finished") == ["0", "1", "2"]
    client = MlflowClient(tracking.uri)
    runs = {
        run.data.tags["kdsearch.kind"]: run
        for run in client.search_runs([client.get_experiment_by_name("finished").experiment_id])
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
    assert f"## Pareto front: {len(members)} of 3 finished students" in runs["study"].data.tags["mlflow.note.content"]
    more = finished.model_copy(update={"search": finished.search.model_copy(update={"trials": 9})})
    sync_study(more, home=home, tracking=tracking)
    assert client.get_run(runs["study"].info.run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(runs["teacher"].info.run_id, "curve/dice")) == 1


def test_overlays_that_cannot_be_written_cause_a_warning(finished, home, tracking, caplog):
    overlays = home / "studies" / "finished" / "overlays"
    shutil.rmtree(overlays)
    overlays.write_text("in the way")
    sync_study(finished, home=home, tracking=tracking)
    assert "cannot write the overlays of trial" in caplog.text
    overlays.unlink()
    sync_study(finished, home=home, tracking=tracking)
    assert list(overlays.iterdir())


def test_sync_of_a_running_or_never_run_study_is_refused(study_file, home, tracking):
    study = named(study_file, "unsynced")
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


@pytest.mark.parametrize("broken", ["a file in its folder's place", "a record of a newer MLflow"])
def test_unusable_mlflow_store_is_refused_before_training(study_file, home, tracking, tmp_path, broken):
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
    study = named(study_file, "unrecorded", INLINE.replace("epochs: 1", "epochs: 2"))
    with pytest.raises(KdsearchError, match=r"tracking: sqlite:///.*/mlflow/mlflow.db cannot be used"):
        seen.extend(run_study(study, home=home, tracking=Tracking(uri=f"sqlite:///{file}")))
    assert not [event for event in seen if not isinstance(event, LoadingData | Estimated)]


def test_front_page_is_logged_again_only_after_a_trial_ends(study_file, home, tracking):
    """The page has several megabytes, which are sent to a remote store each time."""
    text = INLINE.replace("trials: 3", "trials: 1").replace("training: {epochs: 2}", "training: {epochs: 6}")
    study = named(study_file, "few-pages", text)
    events = run_study(study, home=home, tracking=tracking, refresh_every_s=0.0)
    written = [_changed(home / "mlflow", "front.html") for event in events if of_trial(event)]
    assert len(written) == 6
    assert written[0] > 0
    assert len(set(written)) == 1, "written before the first epoch, and not again until a trial ended"


def _changed(folder, name):
    return max((path.stat().st_mtime_ns for path in folder.rglob(name)), default=0)
