"""The address of MLflow: servers that do not respond, and passwords in addresses."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from kdsearch.errors import KdsearchError
from kdsearch.tracking.location import Tracking, answers, choose_tracking


def test_unresponsive_server_is_refused():
    assert not answers("http://127.0.0.1:9", timeout_s=0.5)
    with pytest.raises(KdsearchError, match="tracking: http://127.0.0.1:9 does not answer; start the server"):
        Tracking(uri="http://127.0.0.1:9").require()
    database = Tracking(uri="postgresql+psycopg://me:secret@127.0.0.1:9/mlflow")
    database.require()
    with pytest.raises(KdsearchError, match=r"tracking: postgresql.*\*\*\*@127.0.0.1:9/mlflow does not answer; start"):
        database.require(database=True)
    choose_tracking(None, {}).require(database=True)


def test_password_in_the_environment_s_uri_is_never_printed():
    tracking = choose_tracking(None, {"MLFLOW_TRACKING_URI": "postgresql+psycopg://me:secret@host/db"})
    assert tracking.shown == "postgresql+psycopg://me:***@host/db"
    assert "secret" not in tracking.link("1")
    server = Tracking(uri="http://me:secret@127.0.0.1:9")
    with pytest.raises(KdsearchError, match=r"http://me:\*\*\*@127.0.0.1:9 does not answer"):
        server.require()
    assert "secret" not in server.link("1")


@pytest.mark.parametrize("secret", ["p%40ss", "p%2Fs%20s"])
def test_password_is_masked_encoded_and_decoded(secret):
    tracking = Tracking(uri=f"https://me:{secret}@mlflow.example")
    assert tracking.mask(f"refused {unquote(secret)} and {secret}") == "refused *** and ***"


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("http://localhost:99999", "http://localhost:99999: port out of range 0-65535; write HOST:PORT"),
        ("http://localhost:abc", "http://localhost:abc: port could not be cast .*; write HOST:PORT"),
        ("postgresql://me:secret@[host/db", r"postgresql://me:\*\*\*@\[host/db: invalid IPv6 URL; write HOST:PORT"),
        ("mlruns", "mlruns: must be the URL of a database or a server, .*; write sqlite:///FOLDER/mlflow.db"),
        ("file:./mlruns", "file:./mlruns: must be the URL of a database or a server"),
        ("sqlite://mlflow.db", "sqlite://mlflow.db: must name a file after three slashes"),
    ],
)
def test_invalid_tracking_uri_is_refused_without_connecting(uri, problem):
    with pytest.raises(KdsearchError, match=f"tracking_uri: {problem}"):
        choose_tracking(uri, {})
    with pytest.raises(KdsearchError, match=f"MLFLOW_TRACKING_URI: {problem}"):
        choose_tracking(None, {"MLFLOW_TRACKING_URI": uri})
    assert not answers(uri)


@pytest.mark.parametrize(
    "storage", ["sqlite:///x.db", "sqlite:////{here}/x.db", "sqlite:///{here}/../{name}/x.db?timeout=9"]
)
def test_sharing_a_database_with_optuna_is_detected_in_every_notation(storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KdsearchError, match="is also the study's Optuna database"):
        Tracking(uri="sqlite:///x.db").require_apart_from(storage.format(here=tmp_path, name=tmp_path.name))
    Tracking(uri="sqlite:///x.db").require_apart_from("sqlite:///y.db")
