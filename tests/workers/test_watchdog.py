"""Silence is judged by how long epochs usually take."""

from __future__ import annotations

from kdsearch.trials.record import EpochReport
from kdsearch.workers.dispatcher import UNKNOWN_S, Watchdog


def _report(epoch, seconds):
    return EpochReport(
        epoch=epoch, epochs=9, train_loss=1, validation_loss=1, dice=0.5, learning_rate=0.1, seconds=seconds
    )


def _jobs(watchdog, now):
    return [job for job, _ in watchdog.silent(now=now)]


def test_job_is_judged_by_its_own_slowest_epoch():
    watchdog = Watchdog(timeout=10, least_s=1)
    watchdog.begin("0", macs=100, now=0)
    watchdog.started("0", now=0)
    watchdog.heartbeat("0", _report(1, 5.0), now=5)
    watchdog.heartbeat("0", _report(2, 8.0), now=8)
    assert watchdog.silent(now=58) == []
    assert watchdog.silent(now=59) == [("0", 51)]


def test_silence_below_the_minimum_is_tolerated():
    watchdog = Watchdog(timeout=10)
    watchdog.begin("0", macs=100, now=0)
    watchdog.started("0", now=0)
    watchdog.heartbeat("0", _report(1, 0.1), now=1)
    assert _jobs(watchdog, 60) == []
    assert _jobs(watchdog, 62) == ["0"]


def test_first_epoch_is_judged_by_other_jobs_scaled_by_size():
    watchdog = Watchdog(timeout=10, least_s=1)
    watchdog.begin("0", macs=100, now=0)
    watchdog.started("0", now=0)
    watchdog.heartbeat("0", _report(1, 1.0), now=1)
    watchdog.begin("1", macs=5000, now=1)
    watchdog.started("1", now=1)
    watchdog.end("0")
    assert _jobs(watchdog, 400) == []
    assert _jobs(watchdog, 502) == ["1"]


def test_starting_worker_and_first_epoch_get_a_long_timeout():
    watchdog = Watchdog(timeout=10, least_s=1)
    watchdog.begin("0", macs=100, now=0)
    watchdog.begin("1", macs=100, now=0)
    watchdog.started("1", now=0)
    assert _jobs(watchdog, UNKNOWN_S) == []
    watchdog.heartbeat("1", _report(1, 1.0), now=UNKNOWN_S)
    assert _jobs(watchdog, UNKNOWN_S + 5) == ["0"]


def test_replayed_epochs_count_with_their_original_duration():
    watchdog = Watchdog(timeout=10, least_s=1)
    watchdog.begin("0", macs=100, now=0)
    watchdog.started("0", now=0)
    for epoch in (1, 2, 3):
        watchdog.heartbeat("0", _report(epoch, 20.0 * epoch), now=0.1)
    assert _jobs(watchdog, 199) == []
    assert _jobs(watchdog, 201) == ["0"]


def test_pauses_of_the_driver_do_not_count_as_worker_silence():
    watchdog = Watchdog(timeout=10, least_s=1)
    watchdog.begin("0", macs=100, now=0)
    watchdog.started("0", now=0)
    watchdog.heartbeat("0", _report(1, 1.0), now=1)
    watchdog.reset(now=1000)
    assert _jobs(watchdog, 1009) == []


def test_job_of_unknown_size_does_not_set_the_pace_for_others():
    watchdog = Watchdog(timeout=10, least_s=1)
    watchdog.begin("teacher", macs=None, now=0)
    watchdog.started("teacher", now=0)
    assert _jobs(watchdog, 100 * UNKNOWN_S) == [], "the duration of its first epoch is unknown"
    watchdog.heartbeat("teacher", _report(1, 100.0), now=100)
    watchdog.begin("1", macs=1, now=100)
    watchdog.started("1", now=100)
    assert _jobs(watchdog, 1099) == []
    assert _jobs(watchdog, 1101) == ["teacher"], "it is judged by its own epochs"
