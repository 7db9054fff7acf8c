"""Notices workers whose heartbeat, a report at least every few epochs, stops."""

from __future__ import annotations

from kdsearch.trials.curve import EpochReport

LEAST_S = 60.0
"""Silence shorter than this is never taken for a loss."""
UNKNOWN_S = 1800.0
"""For as long a worker may take to start, and a study's first epoch, before anything is known of its pace."""


class Watchdog:
    """How long each running trial has been silent, and how long it may be."""

    def __init__(self, *, timeout: float, least_s: float = LEAST_S) -> None:
        """``timeout``: usual epochs without a report after which a worker is taken for lost."""
        self._timeout, self._least_s = timeout, least_s
        self._macs: dict[int, int] = {}
        self._up: set[int] = set()
        self._heard: dict[int, float] = {}
        self._reported: dict[int, float] = {}
        self._epoch_s: dict[int, float] = {}
        self._seconds_per_mac = 0.0

    def begin(self, number: int, *, macs: int, now: float) -> None:
        """A trial is given to a worker, which may have to start; ``now`` in seconds of a clock that never goes back."""
        self._macs[number], self._heard[number] = macs, now
        self._reported[number] = self._epoch_s[number] = 0.0

    def started(self, number: int, *, now: float) -> None:
        """A trial's worker is up."""
        self._up.add(number)
        self._heard[number] = now

    def heartbeat(self, number: int, report: EpochReport, *, now: float) -> None:
        """A trial reports; how long its epochs take is what the reports themselves say."""
        took = report.seconds - self._reported[number]
        self._heard[number], self._reported[number] = now, report.seconds
        self._epoch_s[number] = max(self._epoch_s[number], took)
        self._seconds_per_mac = max(self._seconds_per_mac, took / self._macs[number])

    def end(self, number: int) -> None:
        """A trial ends, or loses its worker."""
        self._up.discard(number)
        for known in (self._macs, self._heard, self._reported, self._epoch_s):
            known.pop(number, None)

    def reset(self, *, now: float) -> None:
        """The driver did not poll until now, so silence until now says nothing."""
        self._heard = dict.fromkeys(self._heard, now)

    def silent(self, *, now: float) -> list[tuple[int, float]]:
        """Trials silent for too long, and for how many seconds."""
        return [(number, now - heard) for number, heard in self._heard.items() if now - heard > self.allowed(number)]

    def allowed(self, number: int) -> float:
        """Seconds that a trial may be silent.

        From its own slowest epoch; before its first, from the study's slowest pace for one of its size.
        """
        usual = self._epoch_s[number] or self._seconds_per_mac * self._macs[number]
        return max(self._least_s, self._timeout * usual) if usual and number in self._up else UNKNOWN_S
