"""How MLflow behaves within kdsearch."""

from __future__ import annotations

import logging
import os

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's own settings, unless the environment has others: it would try a server for minutes while a study waits, and
print two lines for every run."""


def mind_manners() -> None:
    """Patience and chatter as they suit a command line; what fails is told by kdsearch."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
