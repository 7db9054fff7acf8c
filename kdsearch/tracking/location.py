"""Where the MLflow record lies, and how to look at it."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from kdsearch.errors import KdsearchError
from kdsearch.files.databases import problem_of_address, sqlite_file
from kdsearch.tracking.views import view_id

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
