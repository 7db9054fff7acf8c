"""Where a search's time went, from the driver's events: ``kdsearch run --profile``."""

from __future__ import annotations

from dataclasses import dataclass, field

from kdsearch.campaign.events import DriverEvent, JobStarted, SearchStarted, TrialEnded
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import job_of_trial
from kdsearch.workers.dispatcher import Requeued
from kdsearch.workers.jobs import EpochEnded


@dataclass(slots=True)
class Profile:
    """Seconds of workers, split into training and what else they were spent on."""

    began: float | None = None
    now: float = 0.0
    workers: int = 0
    """Most trials that ran at once."""
    training: float = 0.0
    trials: int = 0
    _started: dict[str, float] = field(default_factory=dict)
    _trained: dict[str, float] = field(default_factory=dict)
    _running_s: float = 0.0
    _last_start: tuple[float, float] = (0.0, 0.0)
    """When the newest trial started, and the seconds of running trials until then."""

    def handle(self, event: DriverEvent, *, now: float) -> None:
        """Takes one event into account; ``now`` is in seconds of any clock that does not go back."""
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

    def lines(self) -> list[str]:
        """The account; empty where nothing was trained."""
        if self.began is None or not self.training:
            return []
        wall = self.now - self.began
        ideal = self.training / self.workers
        without_trial = wall - self._running_s / self.workers
        around_training = (self._running_s - self.training) / self.workers
        since_last_start = self.now - self._last_start[0]
        nothing_left = since_last_start - (self._running_s - self._last_start[1]) / self.workers
        each = self.training / self.trials
        parts = (wall - ideal, around_training, without_trial - nothing_left, nothing_left)
        shares = [100 * seconds / ideal for seconds in parts]
        return [
            f"profile: {wall:.1f} s of search for {self.trials} trials on {self.workers} worker(s), {each:.1f} s each",
            f"  {shares[0]:.1f} % more than training alone, which is {ideal:.1f} s a worker; of that",
            f"  {shares[1]:.1f} % with a trial but not training: workers starting, scoring, waiting for the driver",
            f"  {shares[2]:.1f} % without a trial: before the first, between two",
            f"  {shares[3]:.1f} % without a trial at the end, while the last ones ran and after them",
        ]
