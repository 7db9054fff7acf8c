"""Where the MLflow record lies, and how to look at it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from kdsearch.errors import KdsearchError

DEFAULT_URI = "sqlite:///mlflow/mlflow.db"
PORT = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """A tracking URI and what a person does with it."""

    uri: str

    def require(self) -> None:
        """Raises KdsearchError at once where a server does not answer; MLflow itself would try for minutes."""
        if self.uri.startswith(("http://", "https://")) and not answers(self.uri):
            raise KdsearchError(
                f"tracking: {self.uri} does not answer; start the server, or name another in tracking_uri or "
                "MLFLOW_TRACKING_URI"
            )

    @property
    def embedded(self) -> bool:
        """Whether the record is a database file on this machine and not a server."""
        return self.uri.startswith("sqlite:///")

    def artifact_location(self) -> str | None:
        """Where an embedded record keeps its artifacts: beside the database."""
        if not self.embedded:
            return None
        return (Path(self.uri.removeprefix("sqlite:///")).resolve().parent / "artifacts").as_uri()

    def command(self) -> str | None:
        """What starts the UI; None where a server already shows it."""
        return f"mlflow server --backend-store-uri {self.uri} --port {PORT}" if self.embedded else None

    def link(self, experiment_id: str) -> str:
        """The page of the study."""
        base = f"http://127.0.0.1:{PORT}" if self.embedded else self.uri.rstrip("/")
        return f"{base}/#/experiments/{experiment_id}/runs"


def choose_tracking(configured: str | None, environment: Mapping[str, str]) -> Tracking:
    """The study file's URI, else ``MLFLOW_TRACKING_URI``, else the embedded store."""
    return Tracking(uri=configured or environment.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)


def answers(uri: str, *, timeout_s: float = 3.0) -> bool:
    """Whether something listens at a tracking server's address."""
    address = urlsplit(uri)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=timeout_s):
            return True
    except OSError:
        return False
