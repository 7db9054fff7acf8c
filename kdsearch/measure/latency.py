"""Measures the latency of a call on this CPU; imports only the standard library."""

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
"""A slow call is warmed up by fewer runs: at least three, and no more after half a second."""
RUNS_AT_ONCE = 50
LEAST_RUNS = 10
LONGEST_S = 2.0
STEADY = 0.02
"""The median has settled if the medians of the earlier and later runs differ by at most this fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latency for one image, after warm-up."""

    runtime: str
    """The runtime with its version."""
    threads: int
    median_ms: float
    p95_ms: float
    """95th percentile."""
    runs: int
    steady: bool
    """Whether the median settled before the time limit."""


def time_calls(
    call: Callable[[], object], *, runtime: str, threads: int, clock: Callable[[], float] = time.perf_counter
) -> Latency:
    """Repeats the call until the median has settled, or for two seconds and at least ten runs."""
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
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def processor_name() -> str:
    """Returns the CPU's model name, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
