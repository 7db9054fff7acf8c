"""What Optuna's storage tells of a trial."""

from __future__ import annotations

import datetime

from optuna.trial import FrozenTrial, TrialState

from kdsearch.trials.record import TrialRecord, read_record


def record_of(trial: FrozenTrial) -> TrialRecord:
    """Raises KdsearchError where a newer release wrote it."""
    return read_record(
        trial.number,
        trial.user_attrs,
        running=trial.state == TrialState.RUNNING,
        started=_utc(trial.datetime_start),
        ended=_utc(trial.datetime_complete),
    )


def _utc(moment: datetime.datetime | None) -> datetime.datetime | None:
    return moment.astimezone(datetime.UTC) if moment else None
