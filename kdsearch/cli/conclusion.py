"""What is said when a study has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kdsearch.distill.record import Student, TrialRecord
from kdsearch.tracking.location import Tracking


def failures(records: Sequence[TrialRecord]) -> list[str]:
    """One line for each reason for which trials failed, the most frequent first."""
    reasons = Counter(record.reason for record in records if record.outcome == "failed")
    return [f"{count} trial{'s' * (count > 1)} failed: {reason}" for reason, count in reasons.most_common()]


def next_steps(
    members: Sequence[Student], *, study_file: Path, tracking: Tracking, experiment: str | None
) -> list[str]:
    """How to look at the record, and what to type next; ``experiment`` is MLflow's number for the study, if known."""
    middle = members[len(members) // 2].scores.params
    return [
        *look(study_file=study_file, tracking=tracking, experiment=experiment),
        f"pick:    kdsearch pick {study_file} --params {middle}",
    ]


def look(*, study_file: Path, tracking: Tracking, experiment: str | None) -> list[str]:
    """How to look at the record."""
    lines = [f"browse:  kdsearch ui {study_file}"]
    return [*lines, f"         {tracking.link(experiment)}"] if experiment is not None else lines
