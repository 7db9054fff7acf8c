"""Notices workers whose heartbeat, a report at least every few epochs, stops."""

from __future__ import annotations

import math

from kdsearch.trials.record import EpochReport

LEAST_S = 60.0
"""Silence shorter than this is never taken for a loss."""
UNKNOWN_S = 1800.0
"""For as long a worker may take to start, and a first epoch, before anything is known of its pace."""


class Watchdog:
    """How long each running job has been silent, and how long it may be."""

    def __init__(self, *, timeout: float, least_s: float = LEAST_S) -> None:
        """``timeout``: usual epochs without a report after which a worker is taken for lost."""
        self._timeout, self._least_s = timeout, least_s
        self._macs: dict[str, int | None] = {}
        self._up: set[str] = set()
        self._heard: dict[str, float] = {}
        self._reported: dict[str, float] = {}
        self._epoch_s: dict[str, float] = {}
        self._seconds_per_mac = 0.0

    def begin(self, job: str, *, macs: int | None, now: float) -> None:
        """A job is given to a worker, which may have to start.

        ``macs`` are its network's, None where they say nothing of its pace; ``now`` in seconds of a clock that never
        goes back.
        """
        self._macs[job], self._heard[job] = macs, now
        self._reported[job] = self._epoch_s[job] = 0.0

    def started(self, job: str, *, now: float) -> None:
        """A job's worker is up."""
        self._up.add(job)
        self._heard[job] = now

    def heartbeat(self, job: str, report: EpochReport, *, now: float) -> None:
        """A job reports; how long its epochs take is what the reports themselves say."""
        took = report.seconds - self._reported[job]
        self._heard[job], self._reported[job] = now, report.seconds
        self._epoch_s[job] = max(self._epoch_s[job], took)
        macs = self._macs[job]
        if macs is not None:
            self._seconds_per_mac = max(self._seconds_per_mac, took / macs)

    def end(self, job: str) -> None:
        """A job ends, or loses its worker."""
        self._up.discard(job)
        for known in (self._macs, self._heard, self._reported, self._epoch_s):
            known.pop(job, None)

    def reset(self, *, now: float) -> None:
        """The driver did not poll until now, so silence until now says nothing."""
        self._heard = dict.fromkeys(self._heard, now)

    def silent(self, *, now: float) -> list[tuple[str, float]]:
        """Jobs silent for too long, and for how many seconds."""
        return [(job, now - heard) for job, heard in self._heard.items() if now - heard > self.allowed(job)]

    def allowed(self, job: str) -> float:
        """Seconds that a job may be silent.

        From its own slowest epoch; before its first, from the slowest pace of those whose size is known.
        """
        if self._macs[job] is None and job in self._up and not self._epoch_s[job]:
            return math.inf  # such as a large teacher's first epoch; a process that dies is noticed anyway
        usual = self._epoch_s[job] or self._seconds_per_mac * (self._macs[job] or 0)
        return max(self._least_s, self._timeout * usual) if usual and job in self._up else UNKNOWN_S
