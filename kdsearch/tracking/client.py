"""MLflow's client: configured, with values and experiments as MLflow takes them."""

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

from mlflow.entities import Metric, Param, Run
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
"""MLflow's own settings, unless the environment has others: it would try a server for minutes while a study waits, and
print two lines for every run."""

KIND = "kdsearch.kind"
"""Tag: ``study``, ``teacher`` or ``trial``."""
STUDY = "kdsearch.study"
"""Tag: tells a study from another of the same name."""
JOB = "kdsearch.job"
"""Tag: the job that made the run's student or teacher, by which runs are found again."""
TRIAL = "kdsearch.trial"
"""Tag: the trial's number in Optuna's storage."""
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


def milliseconds(moment: datetime.datetime | None) -> int:
    """Since 1970; now where there is no moment."""
    return int((moment or datetime.datetime.now(datetime.UTC)).timestamp() * 1000)


def environment_tags() -> dict[str, str]:
    """Versions and the processor."""
    versions = {
        f"version.{name}": importlib.metadata.version(name)
        for name in ("torch", "timm", "optuna", "segmentation-models-pytorch")
    }
    return {"python": platform.python_version(), "processor": platform.machine(), **versions}


def tool_tags(scores: Scores) -> dict[str, str]:
    """What other tools' totals are of: unit, version, input."""
    return {f"count.{count.tool}": count.describe() for count in scores.tool_counts}


def logarithms(scores: Scores) -> dict[str, float]:
    """For MLflow's charts, whose scatter has no logarithmic axis."""
    return {f"log10_{name}": math.log10(value) for name, value in (("params", scores.params), ("macs", scores.macs))}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as text by dotted name."""
    found: dict[str, str] = {}
    for key, value in values.items():
        found |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return found


def add_new_names(client: MlflowClient, run: Run) -> None:
    """Adds to a run that an older release wrote what it holds under the names that this has now."""
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
    """The commit of kdsearch's own checkout, where it runs from one."""
    commit = commit_of_checkout()
    return {"mlflow.source.git.commit": commit} if commit else {}


def require_record(tracking: Tracking) -> None:
    """Raises KdsearchError where the record cannot be opened."""
    tracking.require(database=True)
    try:
        open_client(tracking).search_experiments(max_results=1)
    except store_errors() as error:
        raise KdsearchError(f"tracking: {tracking.shown} cannot be used: {reason_of(error, tracking)}") from error


def find_views(tracking: Tracking, study: str) -> dict[str, str]:
    """The study's views by kind, as paths on any server; of several studies of one name, of the one begun last.

    Where no view is saved, as after somebody removed them, the page of its experiment.

    Raises KdsearchError where the record does not hold the study or cannot be read.
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
        raise KdsearchError(f"tracking: the record does not hold study {study}; kdsearch sync brings it level")
    experiment_id, study_id = runs[0].info.experiment_id, runs[0].data.tags[STUDY]
    there = [kind for kind in KINDS if f"{TAG}{view_id(kind, study_id)}" in tags]
    pages = {kind: view_page(kind, experiment_id, study_id) for kind in there}
    return pages or {"experiment": f"/#/experiments/{experiment_id}"}
