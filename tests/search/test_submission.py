"""How recipes are drawn and handed out, batch by batch where a study is deterministic."""

from __future__ import annotations

import contextlib

import pytest

from kdsearch.trials.record import job_of_trial
from kdsearch.workers.jobs import EpochEnded
from tests.search.fake_driver import StopsAt, fill, finish_trial, handle, report_of
from tests.tiny import TINY

DETERMINISTIC = TINY.replace("trials: 3", "trials: 10, deterministic: true, ask_batch: 4")


def _run_all(driver, order):
    """Finishes the running jobs, the last or the first started first."""
    begun = []
    while True:
        begun += fill(driver)
        if not driver.jobs.executor.jobs:
            return begun
        finish_trial(driver, order(driver.jobs.executor.jobs))


def test_batches_make_recipes_independent_of_workers_and_their_order(session, tmp_path):
    outcomes = []
    for index, (workers, order) in enumerate([(1, min), (3, max), (8, min)]):
        driver = session(text=DETERMINISTIC, workers=workers, home=tmp_path / str(index))
        _run_all(driver, order)
        outcomes.append([record.recipe for record in driver.state.records])
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert len(outcomes[0]) == 10


@pytest.mark.parametrize("kill_after_asks", [1, 3, 4, 5, 10])
def test_half_drawn_batch_is_completed_as_without_the_interruption(session, tmp_path, kill_after_asks):
    whole = session(text=DETERMINISTIC, home=tmp_path / "whole")
    _run_all(whole, min)
    _run_until_killed(session(text=DETERMINISTIC, home=tmp_path / "killed"), kill_after_asks)
    second = session(text=DETERMINISTIC, home=tmp_path / "killed")
    list(second.trials.recover(second.store.abandoned()))
    _run_all(second, max)
    assert [r.recipe for r in second.state.records] == [r.recipe for r in whole.state.records]


@pytest.mark.parametrize("kill_after_asks", [1, 2, 4, 5, 8])
def test_batch_completed_after_raising_trials_survives_a_kill(session, tmp_path, kill_after_asks):
    more = DETERMINISTIC.replace("trials: 10", "trials: 14")
    recipes = []
    for name, kill in (("whole", 99), ("killed", kill_after_asks)):
        _run_all(session(text=DETERMINISTIC, home=tmp_path / name), min)
        _run_until_killed(session(text=more, home=tmp_path / name), kill)
        second = session(text=more, home=tmp_path / name)
        list(second.trials.recover(second.store.abandoned()))
        _run_all(second, max)
        recipes.append([record.recipe for record in second.state.records])
    assert recipes[0] == recipes[1]
    assert len(recipes[0]) == 14


def _run_until_killed(driver, asks):
    """Runs until this many recipes were drawn, or until the study ends."""
    real, drawn = driver.store.ask, []

    def ask(**settings):
        if len(drawn) == asks:
            raise KeyboardInterrupt
        drawn.append(1)
        return real(**settings)

    driver.store.ask = ask
    with contextlib.suppress(KeyboardInterrupt):
        _run_all(driver, max)


def test_pruner_of_a_deterministic_study_sees_only_earlier_batches(session):
    pruner = StopsAt({})
    driver = session(text=DETERMINISTIC, pruner=pruner, workers=2)
    begun = fill(driver)
    for number in begun:
        handle(driver, EpochEnded(job=job_of_trial(number), report=report_of(1)))
        finish_trial(driver, number)
    assert pruner.seen == []
    for number in fill(driver):
        handle(driver, EpochEnded(job=job_of_trial(number), report=report_of(1)))
        finish_trial(driver, number)
    fill(driver)
    assert {number for number, _, _ in pruner.seen} == {0, 1, 2, 3}
