"""Finds a study's record in MLflow."""

from __future__ import annotations

from kdsearch.errors import KdsearchError
from kdsearch.tracking.configure import reason_of, store_errors
from kdsearch.tracking.database import open_client
from kdsearch.tracking.location import Tracking, view_page
from kdsearch.tracking.recorder import KIND, STUDY
from kdsearch.tracking.views import KINDS, TAG, view_id


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
