"""How the driver handles events from workers, with an executor that is controlled by the test."""

from __future__ import annotations

import dataclasses
import time

import pytest
from sqlalchemy.exc import OperationalError

from kdsearch.campaign import driver as campaign_driver
from kdsearch.campaign.events import Resumed, TrialEnded, Waiting
from kdsearch.errors import SearchError
from kdsearch.files.atomic import atomic_write
from kdsearch.files.home import weights_path
from kdsearch.trials.record import job_of_trial
from kdsearch.workers.dispatcher import Requeued
from kdsearch.workers.jobs import EpochEnded, JobFailed, MaterialsFailed, WorkerLost, WorkerReady
from tests.search.fake_driver import StopsAt, fill, finish_trial, handle, report_of, succeed
from tests.tiny import TINY


def test_lost_trial_is_retried_first_under_its_number_until_retries_run_out(session):
    driver = session(workers=1)
    assert fill(driver) == [0]
    recipe = driver.jobs.running[0].student
    for attempt in (1, 2):
        driver.jobs.executor.jobs.pop(0)
        assert (handle(driver, WorkerLost(job=job_of_trial(0), reason="signal 9"))) == [
            Requeued(job=job_of_trial(0), reason="signal 9", attempt=attempt, retries=2)
        ]
        assert fill(driver) == [0]
        assert driver.jobs.running[0].student == recipe
    driver.jobs.executor.jobs.pop(0)
    (ended,) = handle(driver, WorkerLost(job=job_of_trial(0), reason="signal 9"))
    assert (ended.record.outcome, ended.record.reason) == ("failed", "signal 9 (lost 3 times)")
    assert ended.record.lost == ("signal 9",) * 3
    assert fill(driver) == [1]


def test_lost_attempts_are_counted_across_drivers(session):
    first = session(workers=1)
    fill(first)
    handle(first, WorkerLost(job=job_of_trial(0), reason="a"))
    second = session(workers=1)
    list(second.trials.recover(second.store.abandoned()))
    assert fill(second) == [0]
    (event,) = handle(second, WorkerLost(job=job_of_trial(0), reason="b"))
    assert event.attempt == 2


def test_silent_worker_is_dropped_and_its_trial_requeued(session):
    driver = session(least_s=0.0)
    fill(driver)
    for number in (0, 1):
        handle(driver, WorkerReady(job=job_of_trial(number)))
        handle(driver, EpochEnded(job=job_of_trial(number), report=report_of(1)))
    assert list(driver.jobs.drop_silent(driver.trials)) == []
    driver.jobs.watchdog.heartbeat(job_of_trial(1), report_of(1), now=time.monotonic() - 11)
    (event,) = driver.jobs.drop_silent(driver.trials)
    assert event.reason == "its worker was silent for 11 seconds"
    assert driver.jobs.executor.dropped == [1]
    assert fill(driver) == [1]


def test_finished_trial_leaves_weights_and_no_checkpoint(session, tmp_path):
    driver = session()
    fill(driver)
    place = driver.campaign.checkpoint_of(job_of_trial(0))
    atomic_write(place, b"state")
    finish_trial(driver, 0)
    assert weights_path(tmp_path, "tiny", "00000").read_bytes() == b"weights"
    assert not list((tmp_path / "studies" / "tiny" / "checkpoints").iterdir())


def test_stopped_trial_keeps_its_curve_and_later_messages_are_ignored(session):
    pruner = StopsAt({0: 2, 1: 3})
    driver = session(pruner=pruner)
    fill(driver)
    for epoch in (1, 2, 3):
        events = handle(driver, EpochEnded(job=job_of_trial(0), report=report_of(epoch)))
        assert any(isinstance(event, TrialEnded) for event in events) == (epoch == 2)
    assert driver.jobs.executor.stopped == [0]
    (record,) = driver.state.records
    assert record.reason == "after epoch 2 of 3, the test says so"
    assert [report.epoch for report in record.curve] == [1, 2]
    assert record.cost.params > 0
    assert (handle(driver, succeed(0))) == []
    assert driver.store.records()[0].outcome == "stopped"
    assert (0, 2, False) in pruner.seen
    for epoch in (1, 2, 3):
        handle(driver, EpochEnded(job=job_of_trial(1), report=report_of(epoch)))
    assert [job.id for job in driver.jobs.running] == ["00001"], (
        "a trial that has trained all its epochs is not stopped"
    )


def test_study_continues_while_workers_are_stopping(session):
    driver = session(workers=1, pruner=StopsAt({0: 1}))
    fill(driver)
    handle(driver, EpochEnded(job=job_of_trial(0), report=report_of(1)))
    assert fill(driver) == []
    assert not driver.trials.is_done
    driver.jobs.executor.settle()
    assert fill(driver) == [1]


def test_failed_writes_are_retried_until_the_database_recovers(session, monkeypatch):
    driver = session()
    fill(driver)
    monkeypatch.setattr(campaign_driver.time, "sleep", lambda _: None)
    real, attempts = driver.store.finish, []

    def finish(*arguments):
        attempts.append(arguments)
        if len(attempts) < 4:
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        return real(*arguments)

    driver.store.finish = finish
    events = finish_trial(driver, 0)
    assert [type(event) for event in events] == [Waiting, Waiting, Waiting, Resumed, TrialEnded]
    assert events[0].reason == "database or disk is full"
    assert [record.outcome for record in driver.store.records()] == ["finished", "running"]


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("INSERT", {}, Exception("no such table: trials")),
        OperationalError("INSERT", {}, Exception("attempt to write a readonly database")),
        OperationalError("INSERT", {}, Exception("unable to open database file")),
        PermissionError(13, "Permission denied", "optuna.db"),
    ],
)
def test_permanent_database_error_ends_the_study(session, error, tmp_path):
    driver = session()
    fill(driver)

    def fail(*_, **__):
        raise error

    driver.store.fail = fail
    (tmp_path / "studies").rename(tmp_path / "gone")
    named = "(no such table|readonly|unable to open|Permission denied)"
    with pytest.raises(SearchError, match=f"stops: .*{named}.* waiting cannot fix"):
        handle(driver, JobFailed(job=job_of_trial(0), reason="a bug"))


def test_lasting_outage_ends_the_study_with_a_message(session):
    driver = session()

    def write():
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    steps = driver.campaign.write(write, gives_up_after_s=0.5)
    assert isinstance(next(steps), Waiting)
    with pytest.raises(
        SearchError, match="is full; waiting 0.0 hours did not fix this. .* run the same command to resume"
    ):
        next(steps)


def test_untimable_student_fails_and_the_study_continues(session):
    driver = session(text=TINY.replace("trials: 3", "trials: 3, objectives: [dice, latency_ms]"))
    fill(driver)
    assert driver.jobs.running[0].export is not None, "it is exported in the worker, where a failure is a result"
    event = succeed(0)
    driver.jobs.executor.jobs.pop(0)
    (ended,) = handle(driver, dataclasses.replace(event, trained=dataclasses.replace(event.trained, onnx=b"none")))
    assert (ended.record.outcome, driver.store.records()[0].outcome) == ("failed", "failed")
    assert "not a model that ONNX Runtime can open" in ended.record.reason
    assert fill(driver) == [2]


def test_driver_that_lost_its_lease_stops_writing(session):
    driver = session()
    fill(driver)
    driver.lease.taken_by = "process 7 on elsewhere"
    with pytest.raises(SearchError, match="taken over by process 7"):
        finish_trial(driver, 0)
    assert [record.outcome for record in driver.store.records()] == ["running", "running"]


def test_recipe_that_fails_three_times_in_the_same_way_stops_the_study(session):
    text = TINY.replace("{int: [2, 6]}", "2").replace("{choice: [none, logits]}", "none").replace("3,", "9,")
    driver = session(text=text)
    for number in range(4):
        assert number in fill(driver) or number in driver.jobs.executor.jobs
        if number == 0:
            finish_trial(driver, 0)
            continue
        driver.jobs.executor.jobs.pop(number)
        event = JobFailed(job=job_of_trial(number), reason=f"the loss became nan in epoch {number}")
        if number < 3:
            handle(driver, event)
            continue
        message = r"stops: trials 1, 2, 3 failed in the same way; last reason: .* in epoch 3; last recipe: .*width 2"
        with pytest.raises(SearchError, match=message):
            handle(driver, event)
    assert driver.store.records()[3].outcome == "failed"


def test_different_failures_do_not_stop_a_study_that_makes_students(session):
    driver = session(workers=1)
    for number in range(9):
        assert fill(driver) == [number]
        if number % 3 == 0:
            finish_trial(driver, number)
            continue
        driver.jobs.executor.jobs.pop(number)
        letters = "abcdefghi"[number]
        handle(driver, JobFailed(job=job_of_trial(number), reason=f"reason {letters}"))


@pytest.mark.parametrize(("deterministic", "kept"), [(False, 3), (True, 2)])
def test_resumed_trial_is_judged_again_at_passed_epochs_only_if_deterministic(session, deterministic, kept):
    """The driver may have died before it judged them; a deterministic study compares them with the same rivals."""
    text = TINY.replace("workers: 1", f"workers: 1, deterministic: {str(deterministic).lower()}, ask_batch: 1")
    fill(session(workers=1, text=text))
    pruner = StopsAt({0: 2})
    second = session(workers=1, text=text, pruner=pruner)
    list(second.trials.recover(second.store.abandoned()))
    fill(second)
    for epoch in (1, 2):
        handle(second, EpochEnded(job=job_of_trial(0), report=report_of(epoch), replayed=True))
    assert ((0, 2, False) in pruner.seen) != deterministic, "a pruner that compares running trials has seen this epoch"
    pruner.epochs[0] = kept
    handle(second, EpochEnded(job=job_of_trial(0), report=dataclasses.replace(report_of(3), epochs=4)))
    assert [len(record.curve) for record in second.state.records] == [kept]


def test_unreadable_materials_end_the_study_and_keep_its_trials(session):
    driver = session(workers=1)
    fill(driver)
    event = MaterialsFailed(job=job_of_trial(0), reason="OSError: disk", traceback="where")
    with pytest.raises(SearchError, match="a worker could not open its images or teacher: OSError: disk.* to resume"):
        handle(driver, event)
    assert [proposal.number for proposal in driver.store.abandoned()] == [0]
