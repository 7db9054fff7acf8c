"""What a person can type next, and what went wrong in a study that has ended."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kdsearch.tracking.location import Tracking
from kdsearch.trials.record import Student, TrialRecord


def command_line(verb: str, study_file: Path, *words: str, data: Sequence[str] = ()) -> str:
    """``kdsearch VERB STUDY …`` in a shell's quotes; ``data`` are the folders named beside the study file."""
    folders = [word for folder in data for word in ("--data", folder)]
    return shlex.join(["kdsearch", verb, str(study_file), *folders, *words])


def failures(records: Sequence[TrialRecord]) -> list[str]:
    """One line for each reason for which trials failed, the most frequent first."""
    reasons = Counter(record.reason for record in records if record.outcome == "failed")
    return [f"{count} trial{'s' * (count > 1)} failed: {reason}" for reason, count in reasons.most_common()]


def next_steps(
    members: Sequence[Student], *, study_file: Path, data: Sequence[str], tracking: Tracking, page: str | None
) -> list[str]:
    """How to look at the record, and what to type next; ``data`` are the folders that were named beside the file."""
    middle = members[len(members) // 2].scores.params
    return [
        *look(study_file=study_file, tracking=tracking, page=page),
        f"pick:    {command_line('pick', study_file, '--params', str(middle), data=data)}",
    ]


def look(*, study_file: Path, tracking: Tracking, page: str | None) -> list[str]:
    """How to look at the record; ``page`` is the view of the front, if known."""
    lines = [f"browse:  {command_line('ui', study_file)}"]
    return [*lines, f"         {tracking.link(page)}"] if page is not None else lines
