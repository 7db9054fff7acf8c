"""How long one call takes, on this processor; nothing but the standard library is imported here."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WARM_UP = 10
RUNS_AT_ONCE = 50
LONGEST_S = 2.0
STEADY = 0.02
"""Runs are enough when the medians of their earlier and later halves differ by no more than this share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Times of one image, warmed up."""

    runtime: str
    """What ran, with its version."""
    threads: int
    median_ms: float
    p95_ms: float
    """95 of 100 runs took no longer."""
    runs: int
    steady: bool
    """Whether the median had settled when the time for measuring was over."""


def time_calls(
    call: Callable[[], object], *, runtime: str, threads: int, clock: Callable[[], float] = time.perf_counter
) -> Latency:
    """Calls until the median has settled, two seconds at most."""
    for _ in range(WARM_UP):
        call()
    times: list[float] = []
    began = clock()
    steady = False
    while not steady and clock() - began < LONGEST_S:
        for _ in range(RUNS_AT_ONCE):
            before = clock()
            call()
            times.append(clock() - before)
        steady = len(times) > RUNS_AT_ONCE and _is_steady(times)
    return Latency(
        runtime=runtime,
        threads=threads,
        median_ms=1000 * statistics.median(times),
        p95_ms=1000 * statistics.quantiles(times, n=20)[-1],
        runs=len(times),
        steady=steady,
    )


def _is_steady(times: list[float]) -> bool:
    middle = len(times) // 2
    earlier, later = statistics.median(times[:middle]), statistics.median(times[middle:])
    return abs(earlier - later) <= STEADY * statistics.median(times)


def processor_name() -> str:
    """The processor as it calls itself, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
