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
    return [f"{count} trials failed: {reason}" for reason, count in reasons.most_common()]


def next_steps(
    members: Sequence[Student], *, study_file: Path, tracking: Tracking, experiment: str | None
) -> list[str]:
    """How to look at the record, and what to type next; ``experiment`` is MLflow's number for the study, if known."""
    lines = [f"MLflow:  {tracking.command()}"] if tracking.command() else []
    if experiment is not None:
        lines.append(f"then     {tracking.link(experiment)}")
    middle = members[len(members) // 2].scores.params
    return [*lines, f"next:    kdsearch pick {study_file} --params {middle}"]
