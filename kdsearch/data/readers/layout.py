"""Finds a data set's folder, or says what should lie there and where to get it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdsearch.errors import DataError


def require_folder(folder: Path, expected: Sequence[str], *, inside: str | None = None, where: str) -> Path:
    """The folder that holds all of ``expected``: the one given, or ``inside`` it; raises DataError otherwise."""
    candidates = [folder, folder / inside] if inside else [folder]
    for candidate in candidates:
        if all((candidate / name).exists() for name in expected):
            return candidate
    state = "does not hold" if folder.is_dir() else "is not a folder; it should hold"
    raise DataError(f"{folder} {state} {', '.join(expected)}; get the data: {where}")
