"""Configures MLflow's client, and converts values to what MLflow accepts."""

from __future__ import annotations

import datetime
import importlib.metadata
import logging
import math
import os
import platform
import re
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store import db_migrations
from sqlalchemy.exc import SQLAlchemyError

import mlflow
from kdsearch.config.renamed import figure_up_to_date, recorded_up_to_date
from kdsearch.errors import KdsearchError, bucket_errors, first_line
from kdsearch.tracking.location import Tracking, open_client, view_page
from kdsearch.tracking.views import KINDS, TAG, view_id
from kdsearch.trials.scores import Scores
from kdsearch.version import commit_of_checkout
from mlflow import MlflowClient

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's settings, unless the environment sets others. By default, MLflow retries for minutes while a study waits,
and prints two lines per run."""

RUNS_PER_PAGE = 1000
KIND = "kdsearch.kind"
"""Tag: what the run is about, such as ``study``, ``teacher`` or ``trial``."""
STUDY = "kdsearch.study"
"""Tag: the study's ID, because another study may have the same name."""
JOB = "kdsearch.job"
"""Tag: the job that trained the run's student or teacher; identifies the run."""
TRIAL = "kdsearch.trial"
"""Tag: the trial's number in the Optuna database."""
VERSION = re.compile(r"found version (\w+), but expected|locate revision identified by '(\w+)'")
"""How MLflow and alembic report the version of a database's tables."""


def store_errors() -> tuple[type[Exception], ...]:
    """Returns the errors raised if MLflow's database, server or artifact folder is unavailable or rejects a write."""
    from alembic.util import CommandError  # raised when MLflow opens a database

    return (MlflowException, SQLAlchemyError, CommandError, OSError, *bucket_errors())


def reason_of(error: Exception, tracking: Tracking) -> str:
    """Explains the error in one line without passwords, and what to do if another release of MLflow wrote the data."""
    found = VERSION.search(str(error))
    if found is None:
        return tracking.mask(first_line(error))
    version = found[1] or found[2]
    known = Path(db_migrations.__path__[0]) / "versions"
    if not list(known.glob(f"{version}_*.py")):
        return (
            f"it was written by a newer MLflow than the installed {mlflow.__version__} (tables of version {version}); "
            "install that MLflow, or set another tracking_uri or MLFLOW_TRACKING_URI"
        )
    return (
        f"it was written by an older MLflow than the installed {mlflow.__version__} (tables of version {version}); "
        f"make a copy, then upgrade it with: mlflow db upgrade {tracking.shown}"
    )


def configure_mlflow() -> None:
    """Sets short timeouts and hides MLflow's messages; kdsearch reports its errors."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def milliseconds(moment: datetime.datetime | None) -> int:
    """Returns milliseconds since 1970 for the moment, or for now if it is None."""
    return int((moment or datetime.datetime.now(datetime.UTC)).timestamp() * 1000)


def environment_tags() -> dict[str, str]:
    """Returns the versions of Python and important packages, and the processor, as tags."""
    versions = {
        f"version.{name}": importlib.metadata.version(name)
        for name in ("torch", "timm", "optuna", "segmentation-models-pytorch")
    }
    return {"python": platform.python_version(), "processor": platform.machine(), **versions}


def tool_tags(scores: Scores) -> dict[str, str]:
    """Returns tags that describe the counts of other tools: unit, version and input."""
    return {f"count.{count.tool}": count.describe() for count in scores.tool_counts}


def logarithms(scores: Scores) -> dict[str, float]:
    """Returns logarithms of sizes, because MLflow's scatter charts have no logarithmic axis."""
    return {f"log10_{name}": math.log10(value) for name, value in (("params", scores.params), ("macs", scores.macs))}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Flattens nested settings to text by dotted name."""
    found: dict[str, str] = {}
    for key, value in values.items():
        found |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return found


def add_new_names(client: MlflowClient, run: Run) -> None:
    """Adds the params and metrics of a run that an older release wrote, under their new names."""
    prefix = "teacher." if run.data.tags.get(KIND) == "teacher" else ""
    known, figures = run.data.params, run.data.metrics
    params = recorded_up_to_date({prefix + name: value for name, value in known.items()})
    renamed = {figure_up_to_date(name): value for name, value in figures.items()}
    added = [
        Param(name.removeprefix(prefix), value)
        for name, value in params.items()
        if name.removeprefix(prefix) not in known
    ]
    now = milliseconds(None)
    measured = [Metric(name, value, now, 0) for name, value in renamed.items() if name not in figures]
    if added or measured:
        client.log_batch(run.info.run_id, measured, added)


def code_version() -> dict[str, str]:
    """Returns a tag with the commit of kdsearch's own checkout, if it runs from one."""
    commit = commit_of_checkout()
    return {"mlflow.source.git.commit": commit} if commit else {}


def find_runs(client: MlflowClient, experiment_id: str, wanted: str) -> list[Run]:
    """Returns all runs of the experiment that match MLflow's filter ``wanted``, except deleted ones."""
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], wanted, ViewType.ACTIVE_ONLY, RUNS_PER_PAGE, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def require_record(tracking: Tracking) -> None:
    """Raises KdsearchError if MLflow's database or server cannot be opened."""
    tracking.require(database=True)
    try:
        open_client(tracking).search_experiments(max_results=1)
    except store_errors() as error:
        raise KdsearchError(f"tracking: {tracking.shown} cannot be used: {reason_of(error, tracking)}") from error


def find_views(tracking: Tracking, study: str) -> dict[str, str]:
    """Returns the study's saved views by kind, as paths on any MLflow server.

    If several studies have the name, returns the views of the one started last. If somebody deleted the views, returns
    the experiment's page. Raises KdsearchError if MLflow does not contain the study or cannot be read.
    """
    tracking.require(database=True)
    try:
        client = open_client(tracking)
        found = client.get_experiment_by_name(study)
        numbers = [found.experiment_id] if found is not None else []
        tags = found.tags if found is not None else {}
        wanted = f"tags.`{KIND}` = 'study'"
        runs = client.search_runs(numbers, wanted, max_results=1, order_by=["attributes.start_time DESC"])
    except store_errors() as error:
        raise KdsearchError(f"tracking: {tracking.shown} cannot be read: {reason_of(error, tracking)}") from error
    if not runs:
        raise KdsearchError(f"tracking: MLflow has no runs of study {study}; kdsearch sync uploads them")
    experiment_id, study_id = runs[0].info.experiment_id, runs[0].data.tags[STUDY]
    there = [kind for kind in KINDS if f"{TAG}{view_id(kind, study_id)}" in tags]
    pages = {kind: view_page(kind, experiment_id, study_id) for kind in there}
    return pages or {"experiment": f"/#/experiments/{experiment_id}"}
