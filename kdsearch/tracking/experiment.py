"""Finds a study's record in MLflow."""

from __future__ import annotations

import logging

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from kdsearch.errors import KdsearchError
from mlflow import MlflowClient


def find_experiment(uri: str, study: str) -> str:
    """The experiment's number; raises KdsearchError where the record does not hold the study or cannot be read."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        found = MlflowClient(uri).get_experiment_by_name(study)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise KdsearchError(f"tracking: the record cannot be read: {str(error).splitlines()[0]}") from error
    if found is None:
        raise KdsearchError(f"tracking: the record does not hold study {study}; kdsearch sync brings it level")
    return str(found.experiment_id)
