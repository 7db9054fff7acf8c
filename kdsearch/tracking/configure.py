"""How MLflow behaves within kdsearch."""

from __future__ import annotations

import logging
import os

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from kdsearch.errors import bucket_errors

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's own settings, unless the environment has others: it would try a server for minutes while a study waits, and
print two lines for every run."""


def store_errors() -> tuple[type[Exception], ...]:
    """What is raised where a record, or the place of its artifacts, is away or does not take what it is given."""
    return (MlflowException, SQLAlchemyError, OSError, *bucket_errors())


def configure_mlflow() -> None:
    """Patience and chatter as they suit a command line; what fails is reported by kdsearch."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
