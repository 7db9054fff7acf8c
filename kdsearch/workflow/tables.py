"""A study's trials as pandas tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from kdsearch.statistics.standings import NOTHING_KNOWN, Standings, standing_metrics
from kdsearch.trials.record import Student, TrialRecord


def students_table(students: Iterable[Student], standings: Standings = NOTHING_KNOWN) -> pd.DataFrame:
    """A row a student, by trial: every score, how it stands where that is known, then every setting of its recipe."""
    rows = [
        {
            "trial": student.number,
            **student.scores.metrics(),
            **student.cost_with_donors(),
            **standing_metrics(standings, student.number),
            **student.recipe.settings(),
        }
        for student in students
    ]
    return pd.DataFrame(rows).set_index("trial") if rows else pd.DataFrame(index=pd.Index([], name="trial"))


def trials_table(records: Iterable[TrialRecord]) -> pd.DataFrame:
    """A row a trial, whatever became of it: outcome, reason, when, scores where it finished, settings."""
    rows = [
        {
            "trial": record.number,
            "outcome": record.outcome,
            "reason": record.reason,
            "started": record.started,
            "ended": record.ended,
            "epochs_trained": len(record.curve),
            **(record.scores.metrics() if record.scores else {}),
            **(record.recipe.settings() if record.recipe else {}),
        }
        for record in records
    ]
    return pd.DataFrame(rows).set_index("trial") if rows else pd.DataFrame(index=pd.Index([], name="trial"))


def repeats_table(repeats: Sequence[Sequence[TrialRecord]]) -> pd.DataFrame:
    """As ``trials_table``, by repeat, counted from 1, and trial."""
    tables = {place: trials_table(records) for place, records in enumerate(repeats, start=1)}
    return pd.concat(tables, names=["repeat"])
