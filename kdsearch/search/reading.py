"""What Optuna's storage tells of a trial."""

from __future__ import annotations

import datetime
import json

from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter

from kdsearch.trials.curve import CURVE
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import Outcome, TrialRecord
from kdsearch.trials.scores import SCORES, Cost

COST = TypeAdapter(Cost)


def read_record(trial: FrozenTrial) -> TrialRecord:
    """What the storage tells of a trial."""
    attributes = trial.user_attrs
    outcome: Outcome = "running" if trial.state == TrialState.RUNNING else attributes.get("outcome", "failed")
    return TrialRecord(
        number=trial.number,
        outcome=outcome,
        cost=COST.validate_json(attributes["cost"]) if "cost" in attributes else None,
        lost=tuple(json.loads(attributes.get("lost", "[]"))),
        recipe=Recipe.model_validate_json(attributes["recipe"]) if "recipe" in attributes else None,
        scores=SCORES.validate_json(attributes["scores"]) if outcome == "finished" else None,
        curve=CURVE.validate_json(attributes.get("curve", "[]")),
        reason=attributes.get("reason", ""),
        traceback=attributes.get("traceback", ""),
        started=_utc(trial.datetime_start),
        ended=_utc(trial.datetime_complete),
    )


def _utc(moment: datetime.datetime | None) -> datetime.datetime | None:
    return moment.astimezone(datetime.UTC) if moment else None
