"""Where a study's files lie under ``.kdsearch/`` (or ``KDSEARCH_HOME``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def home_folder(environment: Mapping[str, str]) -> Path:
    """``KDSEARCH_HOME``, or ``.kdsearch`` in the current folder."""
    return Path(environment.get("KDSEARCH_HOME") or ".kdsearch")


def study_folder(home: Path, name: str) -> Path:
    """Holds a study's storage and its students' weights."""
    return home / "studies" / name


def weights_path(home: Path, name: str, number: int) -> Path:
    """The weights of a trial's student."""
    return study_folder(home, name) / "trials" / f"{number:05d}.safetensors"


def checkpoint_url(home: Path, name: str, number: int, configured: str | None) -> str:
    """Where a trial's state lies while it runs: in the study file's place for checkpoints, or in the study's folder."""
    place = (
        f"{configured.rstrip('/')}/{name}" if configured else str((study_folder(home, name) / "checkpoints").absolute())
    )
    return f"{place}/{number:05d}.checkpoint"


def storage_url(home: Path, name: str, configured: str | None) -> str:
    """The study's Optuna storage: the one the study file names, or an SQLite file in the study's folder."""
    return configured or f"sqlite:///{study_folder(home, name) / 'optuna.db'}"
