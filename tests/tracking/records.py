"""Ended trials, for tests of what is recorded in MLflow."""

from __future__ import annotations

import datetime

from kdsearch.trials.record import EpochReport, TrialRecord
from tests.front.students import recipe, scores

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def curve(epochs):
    return tuple(
        EpochReport(
            epoch=e, epochs=epochs, train_loss=1 / e, validation_loss=1 / e, dice=0.5, learning_rate=0.1, seconds=e
        )
        for e in range(1, epochs + 1)
    )


def ended(number, *, outcome="finished", epochs=3):
    made = scores(dice=0.7, params=10, macs=20) if outcome == "finished" else None
    return TrialRecord(
        number=number,
        outcome=outcome,
        recipe=recipe(),
        scores=made,
        curve=curve(epochs),
        reason="why",
        started=NOW,
        ended=NOW,
    )
