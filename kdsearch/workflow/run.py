"""Runs a study, or resumes it: each of its repeats, one after another."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kdsearch.config.study import StudyConfig, repeats_of
from kdsearch.search.driver import run_study
from kdsearch.search.events import DriverEvent
from kdsearch.tracking.location import Tracking, choose_tracking
from kdsearch.trials.record import TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One repeat; it runs while its events are read."""

    study: StudyConfig
    tracking: Tracking
    events: Generator[DriverEvent, None, tuple[TrialRecord, ...]]
    """They end with the records of the ended trials; closing them stops the repeat so that it can be resumed."""


def run(study: StudyConfig, *, home: Path, environment: Mapping[str, str]) -> Iterator[Run]:
    """The repeats of the study, the study itself where it has none; whoever asks for the next has read the last one's.

    Reading events raises KdsearchError where the study cannot start or continue.
    """
    for one in repeats_of(study):
        tracking = choose_tracking(one.tracking_uri, environment)
        yield Run(study=one, tracking=tracking, events=run_study(one, home=home, tracking=tracking))
