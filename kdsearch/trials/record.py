"""What a trial leaves behind."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Literal

from kdsearch.trials.curve import EpochReport
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.scores import Cost, Scores

Outcome = Literal["running", "finished", "stopped", "rejected", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial as the storage tells it."""

    number: int
    outcome: Outcome
    recipe: Recipe | None
    """None where the driver died before the recipe was stored."""
    scores: Scores | None = None
    """None unless finished."""
    cost: Cost | None = None
    """None where it was not counted."""
    curve: tuple[EpochReport, ...] = ()
    reason: str = ""
    """Why it was stopped, rejected or failed."""
    traceback: str = ""
    """Of an exception that nobody expected, where that is the reason."""
    lost: tuple[str, ...] = ()
    """How its workers were lost, one after the other."""
    started: datetime.datetime | None = None
    ended: datetime.datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A finished trial: a student that can be compared and shipped."""

    number: int
    recipe: Recipe
    scores: Scores


def students_of(records: tuple[TrialRecord, ...]) -> tuple[Student, ...]:
    """The finished trials among the records."""
    return tuple(
        Student(number=record.number, recipe=record.recipe, scores=record.scores)
        for record in records
        if record.outcome == "finished" and record.recipe is not None and record.scores is not None
    )
