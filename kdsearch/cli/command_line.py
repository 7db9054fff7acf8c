"""A command as a person types it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def command_line(verb: str, study_file: Path, *words: str, data: Sequence[str] = ()) -> str:
    """``kdsearch VERB STUDY …`` in a shell's quotes; ``data`` are the folders named beside the study file."""
    folders = [word for folder in data for word in ("--data", folder)]
    return shlex.join(["kdsearch", verb, str(study_file), *folders, *words])
