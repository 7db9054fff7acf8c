"""How MLflow behaves within kdsearch."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.store import db_migrations
from sqlalchemy.exc import SQLAlchemyError

import mlflow
from kdsearch.errors import bucket_errors, first_line
from kdsearch.tracking.location import Tracking

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's own settings, unless the environment has others: it would try a server for minutes while a study waits, and
print two lines for every run."""


VERSION = re.compile(r"found version (\w+), but expected|locate revision identified by '(\w+)'")
"""Where MLflow and alembic name the version of a record's tables."""


def store_errors() -> tuple[type[Exception], ...]:
    """What is raised where a record, or the place of its artifacts, is away or does not take what it is given."""
    from alembic.util import CommandError  # as MLflow does, when it opens a database

    return (MlflowException, SQLAlchemyError, CommandError, OSError, *bucket_errors())


def reason_of(error: Exception, tracking: Tracking) -> str:
    """Why the record refused something, in a line without a password; what to do where another MLflow wrote it."""
    found = VERSION.search(str(error))
    if found is None:
        return tracking.mask(first_line(error))
    version = found[1] or found[2]
    known = Path(db_migrations.__path__[0]) / "versions"
    if not list(known.glob(f"{version}_*.py")):
        return (
            f"a newer MLflow than the installed {mlflow.__version__} wrote it (tables of version {version}); install "
            "that MLflow, or name another place in tracking_uri or MLFLOW_TRACKING_URI"
        )
    return (
        f"an older MLflow than the installed {mlflow.__version__} wrote it (tables of version {version}); make a copy "
        f"of it, then bring it up to date with: mlflow db upgrade {tracking.shown}"
    )


def configure_mlflow() -> None:
    """Patience and chatter as they suit a command line; what fails is reported by kdsearch."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
