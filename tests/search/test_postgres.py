"""A study whose Optuna and MLflow databases are in a real PostgreSQL."""

from __future__ import annotations

import logging
import shutil
import time

import pytest
import sqlalchemy as sa

from kdsearch.campaign.events import Resumed, SearchStarted, TrialEnded, Waiting
from kdsearch.campaign.lease import TABLE, Lease
from kdsearch.cli.main import main
from kdsearch.config.load import load_study
from kdsearch.errors import KdsearchError, SearchError
from kdsearch.search.run import run_study
from kdsearch.search.store import open_store
from kdsearch.tracking.location import Tracking
from mlflow import MlflowClient
from tests.postgres import PASSWORD
from tests.tiny import INLINE


@pytest.fixture
def database(postgres, monkeypatch):
    """A new database's URL; the password is where libpq looks for it."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return _new_database(postgres)


def _new_database(postgres):
    return postgres.create(f"study_{time.monotonic_ns()}")


def test_postgres_holds_study_and_record_and_no_password_is_stored(
    study_file,
    database,
    postgres,
    tmp_path,
    tiny_home,
    monkeypatch,
    capfd,
):
    record = _new_database(postgres)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KDSEARCH_HOME", raising=False)
    shutil.copytree(tiny_home, ".kdsearch")
    path = study_file(INLINE + f"storage: {database}\ntracking_uri: {record}\n")
    with _log() as log:
        assert main(["run", str(path)]) == 0
        assert main(["front", str(path), "--csv"]) == 0
        assert main(["sync", str(path)]) == 0
    shown = capfd.readouterr()
    assert f"browse:  kdsearch ui {path}" in shown.out
    client = MlflowClient(record)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment])
    assert sorted(run.data.tags["kdsearch.kind"] for run in runs) == ["study", "teacher", "trial", "trial", "trial"]
    kept = [str(run.to_dictionary()) for run in runs] + [
        path.read_text(errors="ignore") for path in tmp_path.rglob("*") if path.is_file()
    ]
    assert all(PASSWORD not in text for text in (shown.out, shown.err, "\n".join(log), *kept))


def test_one_database_for_both_is_refused(study_file, database, tmp_path):
    study = load_study(study_file(INLINE + f"storage: {database}\n"))
    with pytest.raises(KdsearchError, match="Optuna and MLflow need separate databases"):
        next(run_study(study, home=tmp_path, tracking=Tracking(uri=database.replace("+psycopg", ""))))


def test_password_is_found_in_pgpass(study_file, database, tmp_path, monkeypatch):
    monkeypatch.delenv("PGPASSWORD")
    study = load_study(study_file(INLINE + f"storage: {database}\n"))
    with pytest.raises(SearchError, match="cannot open its Optuna database") as refused:
        open_store(study, tmp_path, create=True)
    assert "no password supplied" in str(refused.value)
    (tmp_path / "pgpass").write_text(f"127.0.0.1:*:*:*:{PASSWORD}\n")
    (tmp_path / "pgpass").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    assert open_store(study, tmp_path, create=True).records() == ()


def test_wrong_password_is_refused_without_being_shown(study_file, database, tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "wrong-secret")
    study = load_study(study_file(INLINE + f"storage: {database}\n"))
    with pytest.raises(SearchError, match="password authentication failed") as refused:
        open_store(study, tmp_path, create=True)
    assert "wrong-secret" not in str(refused.value)


@pytest.mark.slow
def test_study_waits_for_a_server_that_restarts_and_loses_nothing(
    study_file, database, postgres, tiny_home, record, tmp_path
):
    """The front in MLflow is due for an update while the server is down, as in any outage of over twenty seconds."""
    study = load_study(study_file(INLINE + f"storage: {database}\n"))
    shutil.copytree(tiny_home, tmp_path, dirs_exist_ok=True)
    tracking = Tracking(uri=record)
    driver = run_study(study, home=tmp_path, tracking=tracking, refresh_every_s=0.0)
    events, is_away = [], False
    try:
        for event in driver:
            if isinstance(event, SearchStarted):
                postgres.stop()
                is_away = True
            elif isinstance(event, Waiting) and is_away:
                postgres.start()
                is_away = False
            events.append(event)
    finally:
        if is_away:
            postgres.start()
    records = open_store(study, tmp_path, create=False).records()
    kinds = [type(event) for event in events]
    assert kinds.index(Waiting) < kinds.index(Resumed)
    assert kinds.count(TrialEnded) == 3
    assert [record.outcome for record in records] == ["finished"] * 3
    assert [event.record for event in events if isinstance(event, TrialEnded)] == list(records)


def test_second_driver_is_refused_and_a_lease_expires_by_the_server_s_clock(database):
    with Lease(database, "a", renewed_every_s=3600):
        with pytest.raises(SearchError, match="run already, by process"):
            Lease(database, "a").__enter__()
        with sa.create_engine(database, poolclass=sa.NullPool).begin() as connection:
            connection.execute(sa.text("SET TIME ZONE 'Asia/Tokyo'"))
            connection.execute(sa.update(TABLE).values(host="elsewhere"))
        with pytest.raises(SearchError, match="run already, by process"):
            Lease(database, "a").__enter__()
        time.sleep(1.1)
        with Lease(database, "a", lasts_s=1.0):
            pass


class _log:  # noqa: N801 - reads as a word
    """Every log line, of every library."""

    def __enter__(self):
        self.lines = []
        self._handler = logging.Handler()
        self._handler.emit = lambda record: self.lines.append(record.getMessage())
        logging.getLogger().addHandler(self._handler)
        return self.lines

    def __exit__(self, *_):
        logging.getLogger().removeHandler(self._handler)
