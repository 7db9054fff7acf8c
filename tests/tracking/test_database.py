"""MLflow's SQLite file, whose creation may be interrupted or started twice."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time

import pytest
import sqlalchemy as sa
from mlflow.store.db.utils import InitialBase

from kdsearch.config.study import StudyConfig
from kdsearch.errors import KdsearchError
from kdsearch.tracking.location import Tracking, is_made, open_client
from kdsearch.tracking.recorder import Recorder
from kdsearch.tracking.server import serving


def _break_off(file, *, seconds_ago=60):
    """Leaves the file as MLflow does if it is killed during a migration."""
    engine = sa.create_engine(f"sqlite:///{file}")
    InitialBase.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE _alembic_tmp_tags (key TEXT)"))
    engine.dispose()
    then = time.time() - seconds_ago
    os.utime(file, (then, then))


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """An MLflow database with one study."""
    tracking = Tracking(uri=f"sqlite:///{tmp_path_factory.mktemp('record') / 'mlflow' / 'mlflow.db'}")
    Recorder(StudyConfig(name="first"), tracking, study_id="one").close(finished=True)
    return tracking


def test_database_whose_creation_was_interrupted_is_rebuilt(tmp_path):
    tracking = Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    _break_off(tracking.file)
    assert not is_made(tracking.file)
    with (
        pytest.raises(
            KdsearchError, match=r"mlflow.db: this MLflow database is incomplete, because creating it was interrupted"
        ),
        serving(tracking),
    ):
        pass
    (tmp_path / "mlflow.db-journal").write_bytes(b"of the file that is replaced")
    Recorder(StudyConfig(name="first"), tracking, study_id="one").close(finished=True)
    assert is_made(tracking.file)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == ["mlflow.db", "artifacts"]


def test_record_wanted_by_two_processes_is_created_once(tmp_path):
    tracking = Tracking(uri=f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(open_client(tracking).search_experiments())) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[experiment.name for experiment in experiments] for experiments in found] == [["Default"]] * 2


def test_file_with_any_content_counts_as_an_existing_database(tmp_path, record):
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE mine (x)")
        database.execute("INSERT INTO mine VALUES (1)")
    database.close()
    (tmp_path / "text.db").write_text("not a database, but somebody's")
    assert is_made(other)
    assert is_made(tmp_path / "text.db")
    assert is_made(record.file)
    assert not is_made(tmp_path / "none.db")


def test_file_being_created_by_another_program_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: _finish())
    file = tmp_path / "mlflow.db"
    _break_off(file, seconds_ago=0)
    identity = file.stat().st_ino

    def _finish():
        with sqlite3.connect(file) as database:
            database.execute("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (0, 'D', 'active')")
        database.close()

    from kdsearch.tracking.location import is_made_by_now

    assert is_made_by_now(file)
    assert file.stat().st_ino == identity


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        (
            "ffffffffffff",
            r"it was written by a newer MLflow than the installed .*; install that MLflow, or set another",
        ),
        ("0a8213491aaa", r"it was written by an older MLflow .*upgrade it with: mlflow db upgrade sqlite:///.*db"),
    ],
)
def test_database_of_another_mlflow_version_is_refused_with_a_remedy(tmp_path, record, version, remedy):
    file = tmp_path / "mlflow.db"
    shutil.copy(record.file, file)
    with sqlite3.connect(file) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (version,))
    database.close()
    with pytest.raises(KdsearchError, match=rf"tracking: sqlite:///.* cannot be used: {remedy}"):
        Recorder(StudyConfig(name="first"), Tracking(uri=f"sqlite:///{file}"), study_id="one")
