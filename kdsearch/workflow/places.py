"""Checks the locations that a study writes to: Optuna database, MLflow and checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from kdsearch.config.study import StudyConfig
from kdsearch.errors import KdsearchError
from kdsearch.files.home import checkpoint_folder, sqlite_file, storage_url
from kdsearch.tracking.location import Tracking, choose_tracking


def require_forms(study: StudyConfig, home: Path, environment: Mapping[str, str]) -> Tracking:
    """Returns where MLflow's data is; raises KdsearchError for invalid locations, without connecting to any."""
    tracking = choose_tracking(study.tracking_uri, environment)
    tracking.require_apart_from(storage_url(home, study.name, study.storage))
    checkpoint_folder(home, study.name, study.search.checkpoint_url, study_id="")
    return tracking


def require_places(study: StudyConfig, home: Path, environment: Mapping[str, str]) -> None:
    """Raises KdsearchError if a location cannot be reached or written to; creates nothing."""
    from kdsearch.campaign.preparation import clear_checkpoints  # imports torch
    from kdsearch.campaign.storage import open_storage, storage_errors

    tracking = require_forms(study, home, environment)
    url = storage_url(home, study.name, study.storage)
    storage, record = sqlite_file(url), tracking.file
    if storage is None or storage.exists():
        with storage_errors(study.name):
            open_storage(url)
    else:
        _require_writable(storage, field="storage")
    if record is None or record.exists():
        from kdsearch.tracking.client import require_record  # slow to import

        require_record(tracking)
    else:
        _require_writable(record, field="tracking")
    clear_checkpoints(study, home, (), study_id="")


def _require_writable(file: Path, *, field: str) -> None:
    existing = next(path for path in file.parents if path.exists())
    if not existing.is_dir():
        raise KdsearchError(
            f"{field}: {file} cannot be created: {existing} is not a folder; move it, or choose another path"
        )
    if not os.access(existing, os.W_OK):
        raise KdsearchError(
            f"{field}: {file} cannot be created: no permission to write in {existing}; choose another path"
        )
