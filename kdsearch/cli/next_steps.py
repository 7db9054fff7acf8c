"""The commands that a command suggests when it is done."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from kdsearch.config.quantity import format_quantity
from kdsearch.tracking.location import Tracking


def command_line(verb: str, study_file: Path, *words: str, data: Sequence[str] = ()) -> str:
    """``kdsearch VERB STUDY …`` with shell quoting; ``data`` holds the values of ``--data``."""
    folders = [word for folder in data for word in ("--data", folder)]
    return shlex.join(["kdsearch", verb, str(study_file), *folders, *words])


def browse_lines(study_file: Path, *, tracking: Tracking | None = None, page: str | None = None) -> list[str]:
    """How to open the study in MLflow, with the link if the view of its front is known."""
    lines = [f"browse:  {command_line('ui', study_file)}"]
    return [*lines, f"         {tracking.link(page)}"] if tracking is not None and page is not None else lines


def confirm_line(study_file: Path, *, data: Sequence[str]) -> str:
    """How to get honest scores."""
    return f"confirm: {command_line('confirm', study_file, data=data)}"


def pick_line(study_file: Path, *, params: int, data: Sequence[str]) -> str:
    """How to export a student of about so many parameters."""
    budget = format_quantity(round_budget(params))
    return f"pick:    {command_line('pick', study_file, '--params', budget, data=data)}"


def round_budget(params: int) -> int:
    """The next number of the form 1, 2 or 5 times a power of ten."""
    power = int(10 ** (len(str(params)) - 1))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= params)
