"""Where the MLflow record lies, and how to look at it."""

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
from kdsearch.files.home import problem_of_address, sqlite_file
from kdsearch.files.whole import PARTIAL, lock_of
from kdsearch.tracking.views import view_id

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow/mlflow.db"
PORT = 5000
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """A tracking URI and what a person does with it."""

    uri: str

    def require(self, *, database: bool = False) -> None:
        """Raises KdsearchError at once where a server does not answer; MLflow itself would try for minutes.

        A database's server is asked only with ``database``, as before a study: it notes each such call in its log.
        """
        parts = urlsplit(self.uri)
        asked = parts.scheme in ("http", "https") or (
            database and parts.hostname and parts.scheme.partition("+")[0] in PORTS
        )
        if asked and not answers(self.uri):
            raise KdsearchError(
                f"tracking: {self.shown} does not answer; start the server, or name another in tracking_uri or "
                "MLFLOW_TRACKING_URI"
            )

    def require_apart_from(self, storage: str) -> None:
        """Raises KdsearchError where MLflow and Optuna were to share a database: their tables' versions collide."""
        if self.database and _place(self.uri) == _place(storage):
            raise KdsearchError(
                f"tracking: {self.shown} is the study's storage too; Optuna and MLflow need a database each, such as "
                "optuna and mlflow on the same server"
            )

    @property
    def shown(self) -> str:
        """The URI as it may be printed, without a password that the environment may have put in it."""
        return self.mask(self.uri)

    def mask(self, text: str) -> str:
        """The text without that password, encoded or not."""
        try:
            parts = urlsplit(self.uri)
        except ValueError:  # a host in brackets that is none
            return text.replace(self.uri, re.sub(r"(://[^/:@]*):[^@]*@", r"\1:***@", self.uri))
        secrets = [parts.password or "", *parse_qs(parts.query).get("password", [])]
        written = {form for secret in secrets for form in (secret, unquote(secret), quote(secret, safe=""))}
        for secret in sorted(filter(None, written), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    @property
    def database(self) -> bool:
        """Whether the record is written into a database and not sent to a tracking server."""
        return not self.uri.startswith(("http://", "https://"))

    @property
    def file(self) -> Path | None:
        """The database's file; None where a server keeps it."""
        return sqlite_file(self.uri)

    def artifact_location(self) -> str | None:
        """Where a record in a database keeps its artifacts: beside its file, or in the default place."""
        if not self.database:
            return None
        database = self.file or sqlite_file(DEFAULT_URI)
        assert database is not None, "the default is a file"
        return (database.resolve().parent / "artifacts").as_uri()

    def link(self, page: str) -> str:
        """The page's address; where no server runs yet, as ``kdsearch ui`` serves it."""
        base = f"http://127.0.0.1:{PORT}" if self.database else self.shown.rstrip("/")
        return f"{base}{page}"


def view_page(kind: str, experiment_id: str, study_id: str) -> str:
    """A saved view of a study, opened at its charts, as a path on any server of its record."""
    view = view_id(kind, study_id)
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={view}&compareRunsMode=CHART"


def _place(uri: str) -> Path | tuple[str, str | None, int | None, str]:
    if (file := sqlite_file(uri)) is not None:
        return file.resolve()
    parts = urlsplit(uri)
    return parts.scheme.partition("+")[0], parts.hostname, parts.port, parts.path


def choose_tracking(configured: str | None, environment: Mapping[str, str]) -> Tracking:
    """The study file's URI, else ``MLFLOW_TRACKING_URI``, else the embedded store.

    Raises KdsearchError for one that cannot be a record's, without asking anybody.
    """
    tracking = Tracking(uri=configured or environment.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)
    problem = _problem(tracking)
    if problem:
        where = "tracking_uri" if configured else "MLFLOW_TRACKING_URI"
        raise KdsearchError(f"{where}: {tracking.shown}: {problem}")
    return tracking


def _problem(tracking: Tracking) -> str:
    """What is wrong with the URI and what to write; empty where it may be a record's."""
    scheme, colon, _ = tracking.uri.partition(":")
    if not colon or scheme == "file" or "/" in scheme:
        return (
            "must be the URL of a database or of a server, because MLflow 3 keeps no records in folders; write "
            "sqlite:///FOLDER/mlflow.db, or http://HOST:5000 for a server"
        )
    if problem := problem_of_address(tracking.uri):
        return problem
    if scheme.partition("+")[0] == "sqlite" and tracking.file is None:
        return "names no file; write three slashes before its path, such as sqlite:///mlflow/mlflow.db"
    return ""


def answers(uri: str, *, timeout_s: float = 3.0) -> bool:
    """Whether something listens at a tracking server's address."""
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
"""Tables that hold rows before there is any experiment."""
SETTLED_S = 5.0
"""A file without experiments that was written to more recently may be in the making by another program."""
POLL_S = 0.5
SIDE_FILES = ("-journal", "-wal", "-shm")
"""What SQLite keeps beside a database, and would apply to another one of its name."""


def open_client(tracking: Tracking) -> MlflowClient:
    """A client of the record, whose SQLite file is made where it is missing; raises ``store_errors``.

    MLflow makes a new database in dozens of steps, which take seconds. Where one was interrupted, or where two
    processes began it at once, MLflow can never open that file again. So it is made by one process at a time, beside
    its place, and moved there whole.
    """
    from kdsearch.tracking.client import configure_mlflow  # takes seconds to import
    from mlflow import MlflowClient

    configure_mlflow()
    file = tracking.file
    if file is not None and not is_made(file):
        with lock_of(file):
            if not _is_made_by_now(file):
                _make(file, artifacts=tracking.artifact_location())
    return MlflowClient(tracking.uri)


def is_made(file: Path) -> bool:
    """Whether the file is a record, or anything else that is not to be replaced; False where it holds nothing at all.

    MLflow adds its first experiment when all tables are made.
    """
    if not file.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as database:
            found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {str(name) for (name,) in found} - FILLED_BY_MLFLOW
            return any(_has_rows(database, table) for table in ("experiments", *tables) if table in tables)
    except sqlite3.Error:  # locked, unreadable or no database: MLflow says which
        return True


def _has_rows(database: sqlite3.Connection, table: str) -> bool:
    name = table.replace('"', '""')
    return database.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() is not None  # noqa: S608 - its own tables


def _is_made_by_now(file: Path) -> bool:
    """As ``is_made``, once nobody has written to the file for a while."""
    while not (made := is_made(file)) and time.time() - _last_written(file) < SETTLED_S:
        time.sleep(POLL_S)
    return made


def _last_written(file: Path) -> float:
    beside = [file, *(file.with_name(file.name + ending) for ending in SIDE_FILES)]
    return max((path.stat().st_mtime for path in beside if path.exists()), default=0.0)


def _make(file: Path, *, artifacts: str | None) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{PARTIAL}-") as folder:
        beside = Path(folder) / file.name
        store = SqlAlchemyStore(f"sqlite:///{beside}", artifacts)  # type: ignore[no-untyped-call]  # MLflow has no types here
        store.engine.dispose()
        with beside.open("rb") as made:
            os.fsync(made.fileno())
        file.unlink(missing_ok=True)  # before what lies beside it, which belongs to it
        for ending in SIDE_FILES:
            file.with_name(file.name + ending).unlink(missing_ok=True)
        beside.replace(file)
