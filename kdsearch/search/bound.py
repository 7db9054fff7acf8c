"""What a study's trials are made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kdsearch.data.dataset import DataSummary, read_summary
from kdsearch.errors import SearchError
from kdsearch.trials.record import EpochReport, read_curve
from kdsearch.trials.scores import Scores, read_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a study is known by and what its trials are made from; it does not change while the study runs."""

    id: str
    """Tells the study from another of the same name."""
    teacher_id: str
    """Empty before a teacher was bound."""
    teacher: Scores | None
    """None before that."""
    teacher_curve: tuple[EpochReport, ...]
    """The teacher's epochs; empty before that."""
    data: DataSummary | None
    """None before that."""


def read_bound(stored: Mapping[str, Any]) -> Bound:
    """From the attributes of Optuna's study; raises KdsearchError if a newer release wrote them."""
    return Bound(
        id=str(stored["id"]),
        teacher_id=str(stored.get("teacher_id", "")),
        teacher=read_scores(stored["teacher"]) if "teacher" in stored else None,
        teacher_curve=read_curve(stored.get("teacher_curve", "[]")),
        data=read_summary(stored["data_summary"]) if "data_summary" in stored else None,
    )


def made_from(data: DataSummary, student_weights: str, teacher_id: str | None) -> Iterator[tuple[str, str, str]]:
    """What a study's trials are tied to: the key it is stored under, its name in messages, and what it is now."""
    yield "data", "images or their split", data.split
    if teacher_id is not None:
        yield "teacher_id", "teacher or its weights", teacher_id
    yield "unlabelled", "images of data.unlabelled", data.unlabelled_fingerprint or ""
    yield "student_weights", "file's student.weights", student_weights


def require_unchanged(known: Mapping[str, Any], made_from: Iterator[tuple[str, str, str]], *, study: str) -> None:
    """Raises SearchError if what was stored is not what trials are made from now."""
    for key, what, now in made_from:
        if known.get(key, now) != now:
            raise SearchError(
                f"study {study}: the {what} are not those its trials were made from ({known[key]}, now {now}); restore "
                "them, or give the study another name"
            )
