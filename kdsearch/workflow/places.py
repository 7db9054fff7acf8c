"""The places that a study writes to: its storage, its record and its checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from kdsearch.config.study import StudyConfig
from kdsearch.errors import KdsearchError
from kdsearch.files.home import checkpoint_folder, sqlite_file, storage_url
from kdsearch.tracking.location import Tracking, choose_tracking


def require_forms(study: StudyConfig, home: Path, environment: Mapping[str, str]) -> Tracking:
    """Where the record is; raises KdsearchError for places that cannot be such, without asking any of them."""
    tracking = choose_tracking(study.tracking_uri, environment)
    tracking.require_apart_from(storage_url(home, study.name, study.storage))
    checkpoint_folder(home, study.name, study.search.checkpoint_url, study_id="")
    return tracking


def require_places(study: StudyConfig, home: Path, environment: Mapping[str, str]) -> None:
    """Raises KdsearchError where a place cannot be reached or written to; makes nothing that is not there."""
    from kdsearch.campaign.preparation import clear_checkpoints  # brings torch
    from kdsearch.campaign.storage import explained, open_storage

    tracking = require_forms(study, home, environment)
    url = storage_url(home, study.name, study.storage)
    storage, record = sqlite_file(url), tracking.file
    if storage is None or storage.exists():
        with explained(study.name):
            open_storage(url)
    else:
        _require_writable(storage, field="storage")
    if record is None or record.exists():
        _require_record(tracking)
    else:
        _require_writable(record, field="tracking")
    clear_checkpoints(study, home, (), study_id="")


def _require_record(tracking: Tracking) -> None:
    from kdsearch.tracking.client import require_record  # takes seconds to import

    require_record(tracking)


def _require_writable(file: Path, *, field: str) -> None:
    """Raises KdsearchError where the file could not be made."""
    existing = next(path for path in file.parents if path.exists())
    if not existing.is_dir():
        raise KdsearchError(
            f"{field}: {file} cannot be made: {existing} is not a folder; move it, or name another place"
        )
    if not os.access(existing, os.W_OK):
        raise KdsearchError(f"{field}: {file} cannot be made: no right to write in {existing}; name another place")
