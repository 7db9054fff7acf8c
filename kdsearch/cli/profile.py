"""Where a search's time went, measured from its events: ``kdsearch run --profile``."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.table import Table

from kdsearch.campaign.events import DriverEvent, JobStarted, SearchStarted, TrialEnded
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import job_of_trial
from kdsearch.workers.dispatcher import Requeued
from kdsearch.workers.jobs import EpochEnded


@dataclass(slots=True)
class Profile:
    """Seconds of workers, split into training and everything else."""

    began: float | None = None
    now: float = 0.0
    workers: int = 0
    """Most trials that ran at the same time."""
    training: float = 0.0
    trials: int = 0
    _started: dict[str, float] = field(default_factory=dict)
    _trained: dict[str, float] = field(default_factory=dict)
    _running_s: float = 0.0
    _last_start: tuple[float, float] = (0.0, 0.0)
    """When the newest trial started, and the seconds of running trials until then."""

    def handle(self, event: DriverEvent, *, now: float) -> None:
        """Takes an event into account; ``now`` is in seconds of a monotonic clock."""
        self._running_s += len(self._started) * (now - self.now)
        self.now = now
        match event:
            case SearchStarted():
                self.began = now
                self._running_s = 0.0
            case JobStarted(job=job, recipe=Recipe()):
                self._started[job], self._trained[job] = now, 0.0
                self.workers = max(self.workers, len(self._started))
                self._last_start = now, self._running_s
            case EpochEnded(job=job, report=report) if job in self._started:
                self._trained[job] = min(report.seconds, now - self._started[job])
            case TrialEnded(record=record):
                self._end(job_of_trial(record.number))
            case Requeued(job=job):
                self._end(job)

    def _end(self, job: str) -> None:
        if self._started.pop(job, None) is not None:
            self.training += self._trained.pop(job)
            self.trials += 1

    def shares(self) -> list[tuple[str, float]]:
        """Overheads in % of the training time per worker; empty if nothing was trained.

        The first is the sum of the others.
        """
        if self.began is None or not self.training:
            return []
        wall = self.now - self.began
        ideal = self.training / self.workers
        without_trial = wall - self._running_s / self.workers
        around_training = (self._running_s - self.training) / self.workers
        since_last_start = self.now - self._last_start[0]
        nothing_left = since_last_start - (self._running_s - self._last_start[1]) / self.workers
        parts = (
            ("all overhead", wall - ideal),
            ("in a trial, not training: start-up, scoring, waiting", around_training),
            ("between trials", without_trial - nothing_left),
            ("idle at the end, while the last trials ran", nothing_left),
        )
        return [(name, 100 * seconds / ideal) for name, seconds in parts]

    def table(self) -> Table | None:
        """For the terminal; None if nothing was trained."""
        shares = self.shares()
        if self.began is None or not shares:
            return None
        wall, each = self.now - self.began, self.training / self.trials
        title = f"Profile: {wall:.1f} s for {self.trials} trials of {each:.1f} s on {self.workers} worker(s)"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("overhead")
        table.add_column("% of training time", justify="right", no_wrap=True)
        for name, share in shares:
            table.add_row(name, f"{share:.1f}")
        return table
