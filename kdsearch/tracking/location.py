"""Where MLflow's data is stored, and how to open and link to it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlsplit

from kdsearch.errors import KdsearchError
from kdsearch.files.atomic import PARTIAL, lock_of
from kdsearch.files.home import problem_of_address, sqlite_file
from kdsearch.tracking.views import view_id

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow/mlflow.db"
PORT = 5000
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """The URI of MLflow's database or server."""

    uri: str

    def require(self, *, database: bool = False) -> None:
        """Raises KdsearchError at once if the server does not answer; MLflow itself would retry for minutes.

        Checks a database server only with ``database``, because the server logs each of these connections.
        """
        parts = urlsplit(self.uri)
        has_server = parts.scheme in ("http", "https") or (
            database and parts.hostname and parts.scheme.partition("+")[0] in PORTS
        )
        if has_server and not answers(self.uri):
            raise KdsearchError(
                f"tracking: {self.shown} does not answer; start the server, or set another tracking_uri or "
                "MLFLOW_TRACKING_URI"
            )

    def require_apart_from(self, storage: str) -> None:
        """Raises KdsearchError if MLflow and Optuna would share a database, because their version tables collide."""
        if self.database and _place(self.uri) == _place(storage):
            raise KdsearchError(
                f"tracking: {self.shown} is also the study's Optuna database; Optuna and MLflow need separate "
                "databases, such as optuna and mlflow on the same server"
            )

    @property
    def shown(self) -> str:
        """The URI without passwords, for printing."""
        return self.mask(self.uri)

    def mask(self, text: str) -> str:
        """Replaces the URI's passwords in the text, whether or not they are percent-encoded."""
        try:
            parts = urlsplit(self.uri)
        except ValueError:  # an invalid host in brackets
            return text.replace(self.uri, re.sub(r"(://[^/:@]*):[^@]*@", r"\1:***@", self.uri))
        secrets = [parts.password or "", *parse_qs(parts.query).get("password", [])]
        written = {form for secret in secrets for form in (secret, unquote(secret), quote(secret, safe=""))}
        for secret in sorted(filter(None, written), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    @property
    def database(self) -> bool:
        """Whether the URI is a database and not a tracking server."""
        return not self.uri.startswith(("http://", "https://"))

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for servers."""
        return sqlite_file(self.uri)

    def artifact_location(self) -> str | None:
        """The artifact folder of a database: next to its file, or the default; None for a tracking server."""
        if not self.database:
            return None
        database = self.file or sqlite_file(DEFAULT_URI)
        assert database is not None, "the default is a file"
        return (database.resolve().parent / "artifacts").as_uri()

    def link(self, page: str) -> str:
        """Returns the page's URL on the tracking server, or on the server that ``kdsearch ui`` starts."""
        base = f"http://127.0.0.1:{PORT}" if self.database else self.shown.rstrip("/")
        return f"{base}{page}"


def view_page(kind: str, experiment_id: str, study_id: str) -> str:
    """Returns the path of a study's saved view, with charts shown, on any MLflow server."""
    view = view_id(kind, study_id)
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={view}&compareRunsMode=CHART"


def _place(uri: str) -> Path | tuple[str, str | None, int | None, str]:
    if (file := sqlite_file(uri)) is not None:
        return file.resolve()
    parts = urlsplit(uri)
    return parts.scheme.partition("+")[0], parts.hostname, parts.port, parts.path


def choose_tracking(configured: str | None, environment: Mapping[str, str]) -> Tracking:
    """Returns the study file's URI, or else ``MLFLOW_TRACKING_URI``, or else the default SQLite file.

    Raises KdsearchError for an invalid URI; does not connect to it.
    """
    tracking = Tracking(uri=configured or environment.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)
    problem = _problem(tracking)
    if problem:
        where = "tracking_uri" if configured else "MLFLOW_TRACKING_URI"
        raise KdsearchError(f"{where}: {tracking.shown}: {problem}")
    return tracking


def _problem(tracking: Tracking) -> str:
    """What is wrong with the URI, and what to write instead; empty if it is valid."""
    scheme, colon, _ = tracking.uri.partition(":")
    if not colon or scheme == "file" or "/" in scheme:
        return (
            "must be the URL of a database or a server, because MLflow 3 does not support folders; write "
            "sqlite:///FOLDER/mlflow.db, or http://HOST:5000 for a server"
        )
    if problem := problem_of_address(tracking.uri):
        return problem
    if scheme.partition("+")[0] == "sqlite" and tracking.file is None:
        return "must name a file after three slashes, such as sqlite:///mlflow/mlflow.db"
    return ""


def answers(uri: str, *, timeout_s: float = 3.0) -> bool:
    """Whether something accepts connections at the server's address."""
    if problem_of_address(uri):
        return False
    address = urlsplit(uri)
    port = address.port or PORTS.get(address.scheme.partition("+")[0], 80)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=timeout_s):
            return True
    except OSError:
        return False


FILLED_BY_MLFLOW = {"alembic_version", "workspaces"}
"""Tables that have rows before the first experiment exists."""
SETTLED_S = 5.0
"""If a file without experiments was changed more recently, another program may be creating it."""
POLL_S = 0.5
SIDE_FILES = ("-journal", "-wal", "-shm")
"""Endings of the files that SQLite keeps next to a database; it would apply them to a new database of the same name."""


def open_client(tracking: Tracking) -> MlflowClient:
    """Returns a client, and creates the SQLite file if it is missing; raises ``store_errors``.

    MLflow creates a database in dozens of steps, which take seconds. If this is interrupted, or two processes do it at
    the same time, MLflow can never open the file again. Therefore one process at a time creates a temporary file and
    moves it into place when it is complete.
    """
    from kdsearch.tracking.client import configure_mlflow  # slow to import
    from mlflow import MlflowClient

    configure_mlflow()
    file = tracking.file
    if file is not None and not is_made(file):
        with lock_of(file):
            if not is_made_by_now(file):
                _make(file, artifacts=tracking.artifact_location())
    return MlflowClient(tracking.uri)


def is_made(file: Path) -> bool:
    """Whether the file contains anything, and so must not be replaced; False for an unfinished MLflow database.

    MLflow adds its first experiment after it has created all tables.
    """
    if not file.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as database:
            found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {str(name) for (name,) in found} - FILLED_BY_MLFLOW
            return any(_has_rows(database, table) for table in ("experiments", *tables) if table in tables)
    except sqlite3.Error:  # locked, unreadable or not a database; MLflow reports which
        return True


def _has_rows(database: sqlite3.Connection, table: str) -> bool:
    name = table.replace('"', '""')
    return database.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() is not None  # noqa: S608 - a table's name


def is_made_by_now(file: Path) -> bool:
    """Waits until the file is complete or was not changed for a while, then returns ``is_made``."""
    while not (made := is_made(file)) and time.time() - _last_written(file) < SETTLED_S:
        time.sleep(POLL_S)
    return made


def _last_written(file: Path) -> float:
    files = [file, *(file.with_name(file.name + ending) for ending in SIDE_FILES)]
    return max((path.stat().st_mtime for path in files if path.exists()), default=0.0)


def _make(file: Path, *, artifacts: str | None) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{PARTIAL}-") as folder:
        draft = Path(folder) / file.name
        store = SqlAlchemyStore(f"sqlite:///{draft}", artifacts)  # type: ignore[no-untyped-call]  # MLflow has no types here
        store.engine.dispose()
        with draft.open("rb") as made:
            os.fsync(made.fileno())
        file.unlink(missing_ok=True)  # before its side files, which belong to it
        for ending in SIDE_FILES:
            file.with_name(file.name + ending).unlink(missing_ok=True)
        draft.replace(file)
