"""A study's trials as pandas tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from kdsearch.config.study import StudyConfig, repeats_of
from kdsearch.errors import NotRunYetError
from kdsearch.search.store import read_store
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


def all_trials_table(study: StudyConfig, home: Path) -> pd.DataFrame:
    """As ``trials_table``; if the study has repeats, by repeat, counted from 1, and trial.

    Repeats that were never run are left out. Raises NotRunYetError if none was.
    """
    if study.repeats == 1:
        return trials_table(read_store(study, home).records())
    tables = {}
    for place, one in enumerate(repeats_of(study), start=1):
        try:
            tables[place] = trials_table(read_store(one, home).records())
        except NotRunYetError:
            if place == 1:
                raise
    return pd.concat(tables, names=["repeat"])
