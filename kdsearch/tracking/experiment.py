"""Finds a study's record in MLflow."""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from kdsearch.errors import KdsearchError
from kdsearch.tracking.location import Tracking
from kdsearch.tracking.manners import mind_manners
from mlflow import MlflowClient


def find_experiment(tracking: Tracking, study: str) -> str:
    """The experiment's number; raises KdsearchError where the record does not hold the study or cannot be read."""
    mind_manners()
    tracking.require()
    try:
        found = MlflowClient(tracking.uri).get_experiment_by_name(study)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = tracking.mask(str(error).splitlines()[0])
        raise KdsearchError(f"tracking: {tracking.shown} cannot be read: {reason}") from error
    if found is None:
        raise KdsearchError(f"tracking: the record does not hold study {study}; kdsearch sync brings it level")
    return str(found.experiment_id)
