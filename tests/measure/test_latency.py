"""Timing a call."""

from __future__ import annotations

import itertools

import pytest

from kdsearch.measure.latency import LONGEST_S, WARM_UP, processor_name, time_calls


class Clock:
    """A clock that each call advances by the given number of seconds."""

    def __init__(self, seconds):
        self.now, self.seconds, self.calls = 0.0, iter(seconds), 0

    def __call__(self):
        return self.now

    def work(self):
        self.calls += 1
        self.now += next(self.seconds)


def test_warm_up_runs_are_not_counted():
    clock = Clock(itertools.chain([0.01] * WARM_UP, itertools.repeat(0.002)))
    found = time_calls(clock.work, runtime="test", threads=1, clock=clock)
    assert found.median_ms == found.p95_ms == pytest.approx(2.0)
    assert found.runs == clock.calls - WARM_UP
    assert found.steady


def test_timing_ends_once_the_median_has_settled():
    falling = itertools.chain([0.0] * WARM_UP, [0.010] * 100, itertools.repeat(0.002))
    clock = Clock(falling)
    found = time_calls(clock.work, runtime="test", threads=1, clock=clock)
    assert found.steady
    assert found.runs == 100  # both halves of the first hundred agree


def test_unstable_timing_is_reported():
    clock = Clock(itertools.chain([0.0] * WARM_UP, (0.001 * 1.01**index for index in itertools.count())))
    found = time_calls(clock.work, runtime="test", threads=1, clock=clock)
    assert not found.steady
    assert clock.now > LONGEST_S


def test_slow_network_is_timed_with_few_runs():
    clock = Clock(itertools.repeat(0.5))
    found = time_calls(clock.work, runtime="test", threads=1, clock=clock)
    assert (found.runs, found.steady, found.median_ms) == (10, True, pytest.approx(500))
    assert clock.now < 8


def test_percentile_is_above_the_median():
    clock = Clock(itertools.chain([0.0] * WARM_UP, itertools.cycle([0.001] * 9 + [0.009])))
    found = time_calls(clock.work, runtime="test", threads=1, clock=clock)
    assert (found.median_ms, found.p95_ms) == (pytest.approx(1.0), pytest.approx(9.0))


def test_processor_has_a_name():
    assert processor_name()
