"""A driver whose executor is controlled by a test."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import SimpleNamespace

from kdsearch.campaign.driver import Campaign, train_all
from kdsearch.campaign.events import JobStarted
from kdsearch.distill.result import Trained
from kdsearch.errors import SearchError
from kdsearch.search.pruners import NoPruner
from kdsearch.search.store import StudyStore, open_store
from kdsearch.search.trials import StudyState, Trials
from kdsearch.trials.record import EpochReport, job_of_trial, trial_of_job
from kdsearch.workers.dispatcher import Dispatcher, Watchdog
from kdsearch.workers.jobs import JobSucceeded
from tests.front.students import scores
from tests.tiny import TINY

TWELVE = TINY.replace("trials: 3", "trials: 12")


class Idle(Exception):  # noqa: N818 - it says how the driver is
    """The driver has submitted all jobs that fit and would wait for workers now."""


class FakeExecutor:
    """Accepts jobs and does nothing with them."""

    def __init__(self, workers):
        self.workers, self.jobs, self.stopped, self.dropped = workers, {}, [], []

    def room(self):
        return self.workers - len(self.jobs)

    def submit(self, job):
        self.jobs[trial_of_job(job.id)] = job

    def stop(self, job_id, *, within_s):
        assert within_s > 0
        self.stopped.append(trial_of_job(job_id))

    def poll(self, _):
        raise Idle

    def settle(self):
        """Makes the workers that were asked to stop do so."""
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
    """Stops the given trials at the given epochs."""

    def __init__(self, epochs):
        self.epochs, self.seen = epochs, []

    def observe(self, curve):
        self.seen.append((curve.number, len(curve.dice), curve.finished))

    def stops(self, curve):
        return "the test says so" if self.epochs.get(curve.number) == len(curve.dice) else ""


@dataclass
class FakeDriver:
    """A driver with fake workers, and its parts."""

    campaign: Campaign
    trials: Trials
    store: StudyStore

    @property
    def state(self):
        return self.trials.state

    @property
    def jobs(self):
        return self.campaign.jobs

    @property
    def lease(self):
        return self.campaign.lease

    @property
    def study(self):
        return self.campaign.study

    @property
    def home(self):
        return self.campaign.home


def make_session(study, home, *, pruner=None, workers=2, least_s=60.0) -> FakeDriver:
    """A driver that continues the study from its current state."""
    store = open_store(study, home, create=True)
    jobs = _dispatcher(study, store, FakeExecutor(workers), least_s=least_s)
    campaign = Campaign(study=study, home=home, study_id=store.id, lease=FakeLease(), jobs=jobs)
    trials = Trials(
        campaign,
        store=store,
        state=StudyState(store.records(), target=study.search.trials, bound=store.bound()),
        materials=SimpleNamespace(teacher=SimpleNamespace(id="teacher"), place=lambda _: None, unlabelled=None),
        pruner=pruner or NoPruner(),
    )
    return FakeDriver(campaign, trials, store)


def _dispatcher(study, store, executor, *, least_s):
    lost = {job_of_trial(record.number): record.lost for record in store.records() if record.lost}
    watchdog = Watchdog(timeout=study.search.lost_after_epochs, least_s=least_s)
    return Dispatcher(executor, study=study.name, watchdog=watchdog, retries=study.search.retries, lost=lost)


def handle(driver, event):
    return list(driver.jobs.handle(event, driver.trials))


def report_of(epoch, dice=0.5):
    return EpochReport(
        epoch=epoch, epochs=3, train_loss=1, validation_loss=1, dice=dice, learning_rate=0.1, seconds=epoch
    )


def succeed(number):
    made = scores(dice=0.1 * (number + 1), params=100 - number, macs=20)
    return JobSucceeded(job=job_of_trial(number), trained=Trained(scores=made, weights=b"weights"))


def finish_trial(driver, number):
    driver.jobs.executor.jobs.pop(number)
    return handle(driver, succeed(number))


def fill(driver):
    """Lets the driver start as many trials as it can; returns their numbers."""
    begun = []
    with contextlib.suppress(Idle):
        begun.extend(
            trial_of_job(event.job)
            for event in train_all(driver.campaign, driver.trials)
            if isinstance(event, JobStarted)
        )
    return begun
