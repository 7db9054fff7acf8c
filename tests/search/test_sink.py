"""What the driver does with what workers tell, with an executor that does as the test says."""

from __future__ import annotations

import contextlib
import dataclasses
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import OperationalError

from kdsearch.config.load import load_study
from kdsearch.distill.report import Trained
from kdsearch.errors import SearchError
from kdsearch.files.home import weights_path
from kdsearch.files.whole import write_whole
from kdsearch.search import retry
from kdsearch.search.events import Ended, Resumed, Started, Waiting
from kdsearch.search.pruners.pruner import NoPruner
from kdsearch.search.session import Session, StudyState
from kdsearch.search.sink import TrialSink
from kdsearch.search.store import open_store
from kdsearch.search.submission import is_done, recover, submit
from kdsearch.trials.curve import EpochReport
from kdsearch.trials.jobs import job_of_trial, trial_of_job
from kdsearch.workers.dispatcher import Dispatcher, Requeued
from kdsearch.workers.jobs import Begun, Failed, Lost, MaterialsFailed, Progressed, Succeeded
from kdsearch.workers.watchdog import Watchdog
from tests.front.students import scores
from tests.tiny import TINY

TWELVE = TINY.replace("trials: 3", "trials: 12")


class FakeExecutor:
    """Takes jobs and does nothing with them."""

    def __init__(self, workers):
        self.workers, self.jobs, self.stopped, self.dropped = workers, {}, [], []

    def room(self):
        return self.workers - len(self.jobs)

    def submit(self, job):
        self.jobs[trial_of_job(job.id)] = job

    def stop(self, job_id, *, within_s):
        assert within_s > 0
        self.stopped.append(trial_of_job(job_id))

    def settle(self):
        """The workers that were asked to stop have done so."""
        for number in self.stopped:
            self.jobs.pop(number, None)

    def drop(self, job_id):
        self.dropped.append(trial_of_job(job_id))
        del self.jobs[trial_of_job(job_id)]


class FakeLease:
    taken_by = ""

    def check(self):
        if self.taken_by:
            raise SearchError(f"the study was taken over by {self.taken_by}")


class StopsAt:
    """Stops the trials named, at the epochs named."""

    def __init__(self, epochs):
        self.epochs, self.seen = epochs, []

    def observe(self, curve):
        self.seen.append((curve.number, len(curve.dice), curve.finished))

    def stops(self, curve):
        return "the test says so" if self.epochs.get(curve.number) == len(curve.dice) else ""


@pytest.fixture
def session(study_file, tmp_path):
    def make(*, pruner=None, workers=2, home=None, text=TWELVE, least_s=60.0):
        study = load_study(study_file(text))
        store = open_store(study, home or tmp_path, create=True)
        return Session(
            study=study,
            home=home or tmp_path,
            store=store,
            lease=FakeLease(),
            state=StudyState(store.records(), target=study.search.trials),
            jobs=_dispatcher(study, store, FakeExecutor(workers), least_s=least_s),
            recorder=None,
            materials=SimpleNamespace(teacher=SimpleNamespace(id="teacher"), place=lambda _: None),
            pruner=pruner or NoPruner(),
        )

    return make


def _dispatcher(study, store, executor, *, least_s):
    lost = {job_of_trial(record.number): record.lost for record in store.records() if record.lost}
    watchdog = Watchdog(timeout=study.search.heartbeat_timeout, least_s=least_s)
    return Dispatcher(executor, study=study.name, watchdog=watchdog, retries=study.search.retries, lost=lost)


def _handle(session, event):
    return list(session.jobs.handle(event, TrialSink(session)))


def _report(epoch, dice=0.5):
    return EpochReport(
        epoch=epoch, epochs=3, train_loss=1, validation_loss=1, dice=dice, learning_rate=0.1, seconds=epoch
    )


def _succeed(number):
    made = scores(dice=0.1 * (number + 1), params=100 - number, macs=20)
    return Succeeded(job=job_of_trial(number), trained=Trained(scores=made, weights=b"weights"))


def _finish(session, number):
    session.jobs.executor.jobs.pop(number)
    return _handle(session, _succeed(number))


def _fill(session):
    return [event.number for event in submit(session) if isinstance(event, Started)]


def test_lost_trial_goes_on_under_its_number_before_any_new_one_and_fails_after_its_retries(session):
    driver = session(workers=1)
    assert _fill(driver) == [0]
    recipe = driver.jobs.running[0].student
    for attempt in (1, 2):
        driver.jobs.executor.jobs.pop(0)
        assert (_handle(driver, Lost(job=job_of_trial(0), reason="signal 9"))) == [
            Requeued(job=job_of_trial(0), reason="signal 9", attempt=attempt, retries=2)
        ]
        assert _fill(driver) == [0]
        assert driver.jobs.running[0].student == recipe
    driver.jobs.executor.jobs.pop(0)
    (ended,) = _handle(driver, Lost(job=job_of_trial(0), reason="signal 9"))
    assert (ended.record.outcome, ended.record.reason) == ("failed", "signal 9 (lost 3 times)")
    assert ended.record.lost == ("signal 9",) * 3
    assert _fill(driver) == [1]


def test_losses_are_counted_across_drivers(session):
    first = session(workers=1)
    _fill(first)
    _handle(first, Lost(job=job_of_trial(0), reason="a"))
    second = session(workers=1)
    list(recover(second, second.store.abandoned()))
    assert _fill(second) == [0]
    (event,) = _handle(second, Lost(job=job_of_trial(0), reason="b"))
    assert event.attempt == 2


def test_silent_worker_is_dropped_and_its_trial_requeued(session):
    driver = session(least_s=0.0)
    _fill(driver)
    for number in (0, 1):
        _handle(driver, Begun(job=job_of_trial(number)))
        _handle(driver, Progressed(job=job_of_trial(number), report=_report(1)))
    assert list(driver.jobs.drop_silent(TrialSink(driver))) == []
    driver.jobs.watchdog._heard[job_of_trial(1)] -= 11.0
    (event,) = driver.jobs.drop_silent(TrialSink(driver))
    assert event.reason == "its worker was silent for 11 seconds"
    assert driver.jobs.executor.dropped == [1]
    assert _fill(driver) == [1]


def test_finished_trial_leaves_weights_and_no_checkpoint(session, tmp_path):
    driver = session()
    _fill(driver)
    place = driver.checkpoint_of(job_of_trial(0))
    write_whole(place, b"state")
    _finish(driver, 0)
    assert weights_path(tmp_path, "tiny", "00000").read_bytes() == b"weights"
    assert not list((tmp_path / "studies" / "tiny" / "checkpoints").iterdir())


def test_stopped_trial_keeps_its_curve_and_what_comes_later_is_not_heard(session):
    driver = session(pruner=StopsAt({0: 2, 1: 3}))
    _fill(driver)
    for epoch in (1, 2, 3):
        events = _handle(driver, Progressed(job=job_of_trial(0), report=_report(epoch)))
        assert any(isinstance(event, Ended) for event in events) == (epoch == 2)
    assert driver.jobs.executor.stopped == [0]
    (record,) = driver.state.records
    assert record.reason == "after epoch 2 of 3, the test says so"
    assert [report.epoch for report in record.curve] == [1, 2]
    assert record.cost.params > 0
    assert (_handle(driver, _succeed(0))) == []
    assert driver.store.records()[0].outcome == "stopped"
    assert (0, 2, False) in driver.pruner.seen
    for epoch in (1, 2, 3):
        _handle(driver, Progressed(job=job_of_trial(1), report=_report(epoch)))
    assert [job.id for job in driver.jobs.running] == ["00001"], "what is trained to its end is not stopped"


def test_study_goes_on_while_its_workers_are_still_stopping(session):
    driver = session(workers=1, pruner=StopsAt({0: 1}))
    _fill(driver)
    _handle(driver, Progressed(job=job_of_trial(0), report=_report(1)))
    assert _fill(driver) == []
    assert not is_done(driver)
    driver.jobs.executor.settle()
    assert _fill(driver) == [1]


def test_storage_that_is_away_is_waited_for_and_told_once(session, monkeypatch):
    driver = session()
    _fill(driver)
    monkeypatch.setattr(retry.time, "sleep", lambda _: None)
    real, attempts = driver.store.finish, []

    def finish(*arguments):
        attempts.append(arguments)
        if len(attempts) < 4:
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        return real(*arguments)

    driver.store.finish = finish
    events = _finish(driver, 0)
    assert [type(event) for event in events] == [Waiting, Waiting, Waiting, Resumed, Ended]
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
def test_error_that_waiting_does_not_mend_ends_the_study(session, error):
    driver = session()
    _fill(driver)

    def finish(*_):
        raise error

    driver.store.finish = finish
    driver.study = driver.study.model_copy(update={"storage": "sqlite:////gone/optuna.db"})
    named = "(no such table|readonly|unable to open|Permission denied)"
    with pytest.raises(SearchError, match=f"stops: .*{named}.* waiting would not fix"):
        _finish(driver, 0)


def test_driver_that_lost_its_lease_writes_nothing_more(session):
    driver = session()
    _fill(driver)
    driver.lease.taken_by = "process 7 on elsewhere"
    with pytest.raises(SearchError, match="taken over by process 7"):
        _finish(driver, 0)
    assert [record.outcome for record in driver.store.records()] == ["running", "running"]


def test_recipe_that_fails_three_times_in_the_same_way_stops_the_study_though_others_finish(session):
    text = TINY.replace("{int: [2, 6]}", "2").replace("{choice: [none, logits]}", "none").replace("3,", "9,")
    driver = session(text=text)
    for number in range(4):
        assert number in _fill(driver) or number in driver.jobs.executor.jobs
        if number == 0:
            _finish(driver, 0)
            continue
        driver.jobs.executor.jobs.pop(number)
        event = Failed(job=job_of_trial(number), reason=f"the loss became nan in epoch {number}")
        if number < 3:
            _handle(driver, event)
            continue
        message = r"stops: trials 1, 2, 3 failed in the same way, the last because .* in epoch 3; its recipe: .*width 2"
        with pytest.raises(SearchError, match=message):
            _handle(driver, event)
    assert driver.store.records()[3].outcome == "failed"


def test_failures_of_other_kinds_or_recipes_do_not_stop_a_study_that_makes_students(session):
    driver = session(workers=1)
    for number in range(9):
        assert _fill(driver) == [number]
        if number % 3 == 0:
            _finish(driver, number)
            continue
        driver.jobs.executor.jobs.pop(number)
        letters = "abcdefghi"[number]
        _handle(driver, Failed(job=job_of_trial(number), reason=f"reason {letters}"))


DETERMINISTIC = TINY.replace("trials: 3", "trials: 10, deterministic: true, batch: 4")


def _run_all(driver, order):
    """Finishes whatever runs, the last or the first begun first."""
    begun = []
    while True:
        begun += _fill(driver)
        if not driver.jobs.executor.jobs:
            return begun
        _finish(driver, order(driver.jobs.executor.jobs))


def test_batches_make_recipes_independent_of_workers_and_their_order(session, tmp_path):
    outcomes = []
    for index, (workers, order) in enumerate([(1, min), (3, max), (8, min)]):
        driver = session(text=DETERMINISTIC, workers=workers, home=tmp_path / str(index))
        _run_all(driver, order)
        outcomes.append([record.recipe for record in driver.state.records])
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert len(outcomes[0]) == 10


@pytest.mark.parametrize("kill_after_asks", range(1, 11))
def test_batch_that_was_half_drawn_is_drawn_as_if_nothing_had_happened(session, tmp_path, kill_after_asks):
    whole = session(text=DETERMINISTIC, home=tmp_path / "whole")
    _run_all(whole, min)
    _run_until_killed(session(text=DETERMINISTIC, home=tmp_path / "killed"), kill_after_asks)
    second = session(text=DETERMINISTIC, home=tmp_path / "killed")
    list(recover(second, second.store.abandoned()))
    _run_all(second, max)
    assert [r.recipe for r in second.state.records] == [r.recipe for r in whole.state.records]


@pytest.mark.parametrize("kill_after_asks", range(1, 9))
def test_batch_that_fewer_trials_had_cut_short_survives_a_kill_too(session, tmp_path, kill_after_asks):
    more = DETERMINISTIC.replace("trials: 10", "trials: 14")
    recipes = []
    for name, kill in (("whole", 99), ("killed", kill_after_asks)):
        _run_all(session(text=DETERMINISTIC, home=tmp_path / name), min)
        _run_until_killed(session(text=more, home=tmp_path / name), kill)
        second = session(text=more, home=tmp_path / name)
        list(recover(second, second.store.abandoned()))
        _run_all(second, max)
        recipes.append([record.recipe for record in second.state.records])
    assert recipes[0] == recipes[1]
    assert len(recipes[0]) == 14


def _run_until_killed(driver, asks):
    """Goes on until that many recipes were drawn, or to the end."""
    real, drawn = driver.store.ask, []

    def ask():
        if len(drawn) == asks:
            raise KeyboardInterrupt
        drawn.append(1)
        return real()

    driver.store.ask = ask
    with contextlib.suppress(KeyboardInterrupt):
        _run_all(driver, max)


def test_pruner_sees_only_earlier_batches_where_deterministic(session):
    pruner = StopsAt({})
    driver = session(text=DETERMINISTIC, pruner=pruner, workers=2)
    begun = _fill(driver)
    for number in begun:
        _handle(driver, Progressed(job=job_of_trial(number), report=_report(1)))
        _finish(driver, number)
    assert pruner.seen == []
    for number in _fill(driver):
        _handle(driver, Progressed(job=job_of_trial(number), report=_report(1)))
        _finish(driver, number)
    _fill(driver)
    assert {number for number, _, _ in pruner.seen} == {0, 1, 2, 3}


def test_reports_of_a_resumed_trial_are_judged_again_in_order(session):
    first = session(workers=1)
    _fill(first)
    second = session(workers=1, pruner=StopsAt({0: 1}))
    list(recover(second, second.store.abandoned()))
    _fill(second)
    for epoch in (1, 2):
        report = dataclasses.replace(_report(epoch), dice=0.1 * epoch)
        _handle(second, Progressed(job=job_of_trial(0), report=report))
    assert [len(record.curve) for record in second.state.records] == [1]


def test_materials_that_cannot_be_opened_end_the_study_and_keep_its_trials(session):
    driver = session(workers=1)
    _fill(driver)
    event = MaterialsFailed(job=job_of_trial(0), reason="OSError: disk", traceback="where")
    with pytest.raises(SearchError, match="a worker could not open its images or teacher: OSError: disk.* resumes"):
        _handle(driver, event)
    assert [proposal.number for proposal in driver.store.abandoned()] == [0]
