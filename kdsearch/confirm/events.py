"""What a confirmation tells whoever watches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from kdsearch.confirm.preparation import Prepared
from kdsearch.confirm.store import FoldResult
from kdsearch.search.events import Reading, Trouble
from kdsearch.workers.jobs import Progressed


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """The plan is fixed, now or by a former driver, and is carried out."""

    prepared: Prepared
    number: int
    """Which plan of the study it is, from 1."""
    when: str
    """In UTC, as ISO 8601."""
    results: tuple[FoldResult, ...]
    """What former drivers left, teachers aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """An arm was trained and scored in a fold, or could not be."""

    result: FoldResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A member is worse than one no larger beyond doubt, and is trained no further."""

    arm: str
    reason: str


ConfirmEvent: TypeAlias = Reading | Sealed | Scored | Dropped | Progressed | Trouble
