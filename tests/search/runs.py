"""Studies with different names, so that tests can share a home and an MLflow database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdsearch.campaign.events import DriverEvent
from kdsearch.config.load import load_study
from kdsearch.config.study import StudyConfig
from kdsearch.trials.record import makes_teacher
from kdsearch.workers.jobs import EpochEnded
from tests.tiny import INLINE


def named(study_file: Callable[[str], Path], name: str, text: str = INLINE) -> StudyConfig:
    """The study of this text under the given name."""
    return load_study(study_file(text.replace("name: tiny", f"name: {name}")))


def of_trial(event: DriverEvent) -> bool:
    """Whether the event reports an epoch of a student."""
    return isinstance(event, EpochEnded) and not makes_teacher(event.job)
