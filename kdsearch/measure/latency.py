"""How long one call takes, on this processor; nothing but the standard library is imported here."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WARM_UP = 10
LEAST_WARM_UP, LONGEST_WARM_UP_S = 3, 0.5
"""A slow network is warm sooner, counted in calls."""
RUNS_AT_ONCE = 50
LEAST_RUNS = 10
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
    """Calls until the median has settled, or two seconds are over and there are ten runs."""
    began = clock()
    for index in range(WARM_UP):
        call()
        if index + 1 >= LEAST_WARM_UP and clock() - began > LONGEST_WARM_UP_S:
            break
    times: list[float] = []
    began = clock()
    steady = late = False
    while not steady and not late:
        before = clock()
        call()
        times.append(clock() - before)
        late = clock() - began >= LONGEST_S and len(times) >= LEAST_RUNS
        if late or (len(times) % RUNS_AT_ONCE == 0 and len(times) > RUNS_AT_ONCE):
            steady = _is_steady(times)
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


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def processor_name() -> str:
    """The processor as it calls itself, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
