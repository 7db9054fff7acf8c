"""The driver's account of a study: which trials ended, which run, how many are still to come."""

from __future__ import annotations

from collections.abc import Iterable

from kdsearch.distill.record import Student, TrialRecord, students_of
from kdsearch.distill.report import EpochReport


class Ledger:
    """Every trial of the study, kept in memory so that nothing is read from the storage twice."""

    def __init__(self, records: Iterable[TrialRecord], *, target: int) -> None:
        """``target`` is how many trials there are to be, rejected ones not counted."""
        self._ended = {record.number: record for record in records if record.outcome != "running"}
        self._curves: dict[int, list[EpochReport]] = {}
        self._target = target

    @property
    def remaining(self) -> int:
        """Trials that have not begun."""
        counted = sum(record.outcome != "rejected" for record in self._ended.values())
        return max(0, self._target - counted - len(self._curves))

    @property
    def running(self) -> int:
        """Trials that have begun and not ended."""
        return len(self._curves)

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """Ended trials by number."""
        return tuple(self._ended[number] for number in sorted(self._ended))

    @property
    def students(self) -> tuple[Student, ...]:
        """Finished trials by number."""
        return students_of(self.records)

    def begin(self, number: int) -> None:
        """A trial begins, or begins again."""
        self._curves[number] = []

    def report(self, number: int, report: EpochReport) -> None:
        """A running trial finished an epoch."""
        self._curves[number].append(report)

    def curve(self, number: int) -> tuple[EpochReport, ...]:
        """A running trial's reports so far."""
        return tuple(self._curves[number])

    def end(self, record: TrialRecord) -> None:
        """A trial ended."""
        self._curves.pop(record.number, None)
        self._ended[record.number] = record
